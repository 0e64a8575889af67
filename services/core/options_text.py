"""A model version's options as a person writes them: YAML, of which JSON is a part."""

from collections.abc import Mapping
from typing import Any

import yaml

from services.core.errors import InvalidModel

MOST_CHARACTERS = 64 * 1024


class _Loader(yaml.SafeLoader):
    """Without aliases: a few lines of them stand for more than fits into any memory. And without second values, of
    which PyYAML would take the last and say nothing."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """As PyYAML asks for it."""
        if self.check_event(yaml.AliasEvent):
            raise InvalidModel("The options use YAML's aliases (*name); write the values out.")
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """As PyYAML asks for it."""
        node = super().compose_mapping_node(anchor)
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InvalidModel(f"The options have {', '.join(twice)} twice; keep the one that is meant.")
        return node


def load_yaml(text: str) -> Any:
    """What `text` holds.

    Raises InvalidModel for aliases and for names that have two values; yaml.YAMLError, RecursionError or ValueError
    where it is no YAML.
    """
    return yaml.load(text, _Loader)  # noqa: S506 # a safe loader, with less allowed


def parse_options(text: str) -> dict[str, Any]:
    """The options that `text` holds; none for an empty text.

    Raises:
        InvalidModel: it is too long, no YAML, or no mapping of names to one value each.
    """
    if len(text) > MOST_CHARACTERS:
        raise InvalidModel(f"The options are longer than {MOST_CHARACTERS} characters; leave out what is default.")
    try:
        content = load_yaml(text)
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
