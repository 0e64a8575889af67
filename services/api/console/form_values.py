"""What was typed into a form's fields, checked; each fault is a sentence that names the field."""

import math
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime
from typing import Any

from services.core.errors import InvalidModel
from services.core.volumes import Vector

UINT32 = 2**32 - 1
"""What the wire can carry of a code or a version's number."""
MOST_CHARACTERS = 4000
MOST_ROWS = 500
SURROGATES = range(0xD800, 0xE000)


def rows_of(fields: Mapping[str, Any], name: str) -> list[Any]:
    """A field that holds several.

    Raises:
        InvalidModel: it holds something else, or too many.
    """
    rows = fields.get(name) or []
    if not isinstance(rows, list) or len(rows) > MOST_ROWS:
        raise InvalidModel(f"The {name.replace('_', ' ')} cannot be read, or are more than {MOST_ROWS}.")
    return rows


def row_of(row: Any, what: str) -> Mapping[str, Any]:
    """One of them, which has fields itself.

    Raises:
        InvalidModel: it has none.
    """
    if not isinstance(row, Mapping):
        raise InvalidModel(f"{what} cannot be read; load the page again.")
    return row


def text_of(
    fields: Mapping[str, Any], name: str, label: str, *, required: bool = False, most: int = MOST_CHARACTERS
) -> str:
    """A text, without what is around it; empty where there is none.

    Raises:
        InvalidModel: it is too long, cannot be stored, or is missing though it is `required`.
    """
    value = fields.get(name)
    text = "" if value is None else str(value).strip()
    if len(text) > most:
        raise InvalidModel(f"{label} is longer than {most} characters; shorten it.")
    if "\x00" in text or any(ord(character) in SURROGATES for character in text):
        raise InvalidModel(f"{label} holds a character that cannot be stored; type it again.")
    if required and not text:
        raise InvalidModel(f"{label} is missing; fill it in.")
    return text


def number_of(fields: Mapping[str, Any], name: str, label: str, most: int = UINT32) -> int:
    """A whole number; 0 where there is none.

    Raises:
        InvalidModel: it is no whole number from 0 to `most`.
    """
    text = str(fields.get(name) if fields.get(name) is not None else "").strip()
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and int(text) <= most):
        raise InvalidModel(f"{label} is «{text[:40]}»; write a whole number from 0 to {most}.")
    return int(text)


def choice_of(fields: Mapping[str, Any], name: str, label: str, known: Collection[int]) -> int:
    """One of the `known` numbers; 0 where there is none.

    Raises:
        InvalidModel: it is another.
    """
    number = number_of(fields, name, label)
    if number not in known:
        raise InvalidModel(f"{label} is {number}, which is none of the list; choose one of it.")
    return number


def choices_of(fields: Mapping[str, Any], name: str, label: str, known: Collection[int]) -> tuple[int, ...]:
    """Several of the `known` numbers, each once.

    Raises:
        InvalidModel: one is another, or there twice.
    """
    found = tuple(choice_of({name: code}, name, label, known) for code in rows_of(fields, name))
    if len(set(found)) != len(found):
        raise InvalidModel(f"{label} is chosen twice; choose each once.")
    return found


def vector_of(fields: Mapping[str, Any], name: str, label: str, most: float, *, whole: bool = False) -> Vector | None:
    """Three numbers along x, y and z, with spaces, commas or × between; None where there are none.

    Raises:
        InvalidModel: they are not three, or one is not above 0 and at most `most`, or is not `whole` though it has to.
    """
    text = text_of(fields, name, label, most=100)
    if not text:
        return None
    kind = "whole numbers" if whole else "numbers"
    fault = InvalidModel(f"{label} is «{text[:40]}»; write three {kind} above 0 and up to {most:g}, as 1 × 1 × 3.")
    try:
        found = [float(part) for part in text.replace("×", " ").replace(",", " ").split()]
    except ValueError as error:
        raise fault from error
    if len(found) != 3 or not all(math.isfinite(part) and 0 < part <= most for part in found):
        raise fault
    if whole and not all(part.is_integer() for part in found):
        raise fault
    return found[0], found[1], found[2]


def day_of(fields: Mapping[str, Any], name: str, label: str) -> datetime | None:
    """The beginning of a day, UTC; None where there is none.

    Raises:
        InvalidModel: it is no day.
    """
    text = text_of(fields, name, label, most=40)
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise InvalidModel(f"{label} is «{text}»; write a day as 2026-01-31.") from error
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
