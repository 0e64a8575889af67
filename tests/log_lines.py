"""What processes have logged so far."""

import json
from pathlib import Path
from typing import Any


def logged_records(log: Path, *words: str) -> list[dict[str, Any]]:
    """The JSON records in a log whose line holds all these words.

    A last line without its end is left out: the process may be in the middle of it.
    """
    *lines, _ = log.read_bytes().split(b"\n")
    wanted = [word.encode() for word in words]
    return [json.loads(line) for line in lines if line.startswith(b"{") and all(word in line for word in wanted)]
