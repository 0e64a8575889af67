"""Where the console's pages come from: its own templates, and starlette-admin's with their inline scripts marked."""

from collections.abc import Callable
from pathlib import Path

from jinja2 import BaseLoader, Environment, PackageLoader, TemplateNotFound

HERE = Path(__file__).parent
TEMPLATES = HERE / "templates"
STATIC = HERE / "static"

_NONCE = '<script nonce="{{ request.state.csp_nonce }}"'
REPLACEMENTS = {
    "<script": _NONCE,
    'onclick="applyColumnVisibility()"': "data-console-apply-columns",
    'onchange="window.location = this.value"': "data-console-goto",
}
"""A content security policy without 'unsafe-inline' runs no script that is not marked, and no handler in an attribute;
console.js does what the two attributes did."""


class MarkedScripts(BaseLoader):
    """Templates of another loader, with what the content security policy forbids put otherwise."""

    def __init__(self, inner: BaseLoader) -> None:
        self._inner = inner

    def get_source(self, environment: Environment, template: str) -> tuple[str, str | None, Callable[[], bool] | None]:
        """As Jinja asks for it."""
        source, filename, up_to_date = self._inner.get_source(environment, template)
        for found, instead in REPLACEMENTS.items():
            source = source.replace(found, instead)
        return source, filename, up_to_date


def loaders() -> list[BaseLoader]:
    """What is asked after the console's own folder."""
    library = MarkedScripts(PackageLoader("starlette_admin", "templates"))
    return [library, _Prefixed(library)]


class _Prefixed(BaseLoader):
    """`@core/NAME`: the library's template, where the console has one of the same name."""

    def __init__(self, inner: BaseLoader) -> None:
        self._inner = inner

    def get_source(self, environment: Environment, template: str) -> tuple[str, str | None, Callable[[], bool] | None]:
        """As Jinja asks for it."""
        if not template.startswith("@core/"):
            raise TemplateNotFound(template)
        return self._inner.get_source(environment, template.removeprefix("@core/"))
