"""A model version's options as a person writes them: YAML, of which JSON is a part."""

from collections.abc import Mapping
from typing import Any

import yaml

from services.core.errors import InvalidModel

MOST_CHARACTERS = 64 * 1024


class _Loader(yaml.SafeLoader):
    """Without aliases: a few lines of them stand for more than fits into any memory."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """As PyYAML asks for it."""
        if self.check_event(yaml.AliasEvent):
            raise InvalidModel("The options use YAML's aliases (*name); write the values out.")
        return super().compose_node(parent, index)


def parse_options(text: str) -> dict[str, Any]:
    """The options that `text` holds; none for an empty text.

    Raises:
        InvalidModel: it is too long, no YAML, or no mapping of names to values.
    """
    if len(text) > MOST_CHARACTERS:
        raise InvalidModel(f"The options are longer than {MOST_CHARACTERS} characters; leave out what is default.")
    try:
        content = yaml.load(text, _Loader)  # noqa: S506 # a safe loader, with less allowed
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidModel(f"The options are not YAML ({' '.join(str(error).split())[:300]}).") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InvalidModel("The options have to map names to values, one `name: value` a line.")
    return content


def shown_options(options: Mapping[str, Any]) -> str:
    """`options` as text that `parse_options` reads."""
    return "" if not options else yaml.safe_dump(dict(options), sort_keys=False, allow_unicode=True)
