"""What a build sees of the repository: .dockerignore, by the rules of Docker's documentation."""

import re
from pathlib import Path, PurePosixPath

from tests.images.dockerfiles import ROOT


def patterns() -> list[str]:
    """Of .dockerignore, in their order."""
    lines = (line.strip() for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def is_ignored(path: Path) -> bool:
    """Whether that file of the repository is left out: the last pattern that fits it or a folder above decides."""
    relative = PurePosixPath(path.relative_to(ROOT).as_posix())
    names = [str(relative), *(str(parent) for parent in relative.parents if parent.name)]
    ignored = False
    for pattern in patterns():
        keeps = pattern.startswith("!")
        expression = _expression(pattern.removeprefix("!"))
        if any(expression.fullmatch(name) for name in names):
            ignored = not keeps
    return ignored


def _expression(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    meanings = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meanings.get(part, re.escape(part)) for part in parts))
