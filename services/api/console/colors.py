"""Colours as people and browsers write them, #RRGGBB."""

import re

from services.core.catalogue import Color
from services.core.errors import InvalidModel

_HEX = re.compile(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")


def color_of(text: str) -> Color | None:
    """The colour; None for an empty text.

    Raises:
        InvalidModel: it is no colour, or out of range.
    """
    if not text:
        return None
    found = _HEX.fullmatch(text)
    if found is None:
        raise InvalidModel(f"«{text[:40]}» is no colour; write #RRGGBB, two hexadecimal digits each from 00 to FF.")
    red, green, blue = (int(part, 16) for part in found.groups())
    return Color(red, green, blue)


def hex_of(color: list[int] | None) -> str | None:
    """`color` as #RRGGBB. The wire's numbers may be out of range; the nearest that can be shown is."""
    return None if color is None else "#" + "".join(f"{min(max(part, 0), 255):02x}" for part in color)
