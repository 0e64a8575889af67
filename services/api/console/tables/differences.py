"""What an edit changed, in few words for the audit."""

from collections.abc import Mapping
from typing import Any

MOST_CHARACTERS = 100
"""Of each value: the audit tells what was changed, and keeps no descriptions."""
LEAD_CHARACTERS = 20
"""Of what stayed, before the place where long texts begin to differ."""


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """Each field that differs, as «old» → «new»."""
    return {name: _change(before[name], after[name]) for name in before if before[name] != after[name]}


def _change(before: Any, after: Any) -> str:
    old, new = ("" if value is None else str(value) for value in (before, after))
    start = 0
    if max(len(old), len(new)) > MOST_CHARACTERS:
        pairs = enumerate(zip(old, new, strict=False))
        same = next((place for place, (one, other) in pairs if one != other), min(len(old), len(new)))
        start = max(0, same - LEAD_CHARACTERS)
    return f"«{_piece(old, start)}» → «{_piece(new, start)}»"


def _piece(text: str, start: int) -> str:
    end = start + MOST_CHARACTERS
    return f"{'…' if start else ''}{text[start:end]}{'…' if len(text) > end else ''}"
