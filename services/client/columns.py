"""Tables as plain text: columns aligned, nothing cut off, easy to grep."""

from collections.abc import Sequence

from services.client.terminal import printable


def columns(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The header and the rows as lines, each column as wide as its widest cell."""
    cells = [[name.upper() for name in header], *([_one_line(cell) for cell in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(header))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
    return "\n".join(lines)


def _one_line(cell: object) -> str:
    return " ".join(printable(str(cell)).split("\n"))
