"""Whether a UBJSON document is whole: XGBoost's reader goes on beyond the end of one that is cut short, and crashes.

Only the part of UBJSON that XGBoost writes and reads: no objects of a given size or type.
"""

SIZES = {b"Z": 0, b"T": 0, b"F": 0, b"C": 1, b"i": 1, b"U": 1, b"I": 2, b"l": 4, b"L": 8, b"d": 4, b"D": 8}
"""Bytes that follow a marker of one value."""
INTEGERS = frozenset(b"iUIlL")
MOST_DEPTH = 100
"""Of objects and arrays within each other; a model has about ten."""


def check_ubjson(content: bytes) -> None:
    """Raises ValueError, which says where, when `content` is not one whole document and nothing after it."""
    end = _after_value(content, 0, 0)
    if end != len(content):
        raise ValueError(f"it goes on after its end at byte {end}")


def _after_value(content: bytes, at: int, depth: int) -> int:
    """Where the value that begins at `at` ends."""
    marker = content[at : at + 1]
    if depth > MOST_DEPTH:
        raise ValueError(f"it is nested too deeply at byte {at}")
    if marker in SIZES:
        return _within(content, at + 1 + SIZES[marker])
    if marker in {b"S", b"H"}:
        return _after_text(content, at + 1)
    if marker == b"{":
        at += 1
        while content[at : at + 1] != b"}":
            at = _after_value(content, _after_text(content, at), depth + 1)
        return at + 1
    if marker == b"[":
        return _after_array(content, at + 1, depth + 1)
    raise _unexpected(content, at)


def _after_array(content: bytes, at: int, depth: int) -> int:
    kind = b""
    if content[at : at + 1] == b"$":
        kind = content[at + 1 : at + 2]
        at += 2
        if kind not in SIZES or content[at : at + 1] != b"#":
            raise _unexpected(content, at)
    if content[at : at + 1] == b"#":
        count, at = _length(content, at + 1)
        if kind:
            return _within(content, at + count * SIZES[kind])
        for _ in range(count):
            at = _after_value(content, at, depth)
        return at
    while content[at : at + 1] != b"]":
        at = _after_value(content, at, depth)
    return at + 1


def _after_text(content: bytes, at: int) -> int:
    length, at = _length(content, at)
    return _within(content, at + length)


def _length(content: bytes, at: int) -> tuple[int, int]:
    """The whole number at `at`, and where it ends."""
    marker = content[at : at + 1]
    if not marker or marker[0] not in INTEGERS:
        raise _unexpected(content, at)
    end = _within(content, at + 1 + SIZES[marker])
    length = int.from_bytes(content[at + 1 : end], "big", signed=marker != b"U")
    if length < 0:
        raise ValueError(f"it has a length below zero at byte {at}")
    return length, end


def _within(content: bytes, end: int) -> int:
    if end > len(content):
        raise ValueError(f"it is cut short, and ends at byte {len(content)}")
    return end


def _unexpected(content: bytes, at: int) -> ValueError:
    _within(content, at + 1)
    return ValueError(f"it has {content[at : at + 1]!r} at byte {at}")
