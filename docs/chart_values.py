"""The table of the chart's values, from the comments of values.yaml."""

from collections.abc import Iterator
from pathlib import Path

import yaml

VALUES = Path(__file__).resolve().parent.parent / "charts" / "segint" / "values.yaml"
OF_KUBERNETES = frozenset({"resources"})
"""Keys whose inside is Kubernetes' own."""
ELSEWHERE = frozenset({"settings"})
"""Keys whose inside is described in the README's table of settings."""


def values_table() -> str:
    text = VALUES.read_text(encoding="utf-8")
    rows = ["| value | default | meaning |", "|---|---|---|"]
    rows += [f"| `{name}` | {default} | {comment} |" for name, default, comment in _rows(text)]
    return "\n".join(rows)


def _rows(text: str) -> Iterator[tuple[str, str, str]]:
    lines = text.splitlines()
    for path, key, value in _keys(yaml.compose(text, yaml.SafeLoader)):
        comment = []
        for line in reversed(lines[: key.start_mark.line]):
            if not line.lstrip().startswith("# "):
                break
            comment.append(line.strip().removeprefix("# "))
        whole = " ".join(reversed(comment)).replace("|", "\\|")
        yield ".".join(path), _default(path, value, text), whole


def _keys(node: yaml.Node, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], yaml.Node, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        path = (*above, key.value)
        yield path, key, value
        closed = key.value in OF_KUBERNETES or path[0] in ELSEWHERE
        if isinstance(value, yaml.MappingNode) and not (value.flow_style or closed):
            yield from _keys(value, path)


def _default(path: tuple[str, ...], value: yaml.Node, text: str) -> str:
    if isinstance(value, yaml.MappingNode) and not value.flow_style and path[-1] not in OF_KUBERNETES:
        return ""  # its keys follow
    data = yaml.safe_load(text)
    for key in path:
        data = data[key]
    if data in ("", [], {}, None):
        return "–"
    shown = yaml.safe_dump(data, default_flow_style=True, width=10_000).strip().removesuffix("\n...")
    return f"`{shown.replace('|', chr(92) + '|')}`"
