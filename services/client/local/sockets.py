"""Where a server's Unix socket lives: in the server's own folder, or in a short one when that path is too long."""

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from services.client.local.faults import DataDirUnusable

LONGEST_SOCKET_PATH_BYTES = 100
"""The kernel takes 107 bytes on Linux and 103 on macOS, PostgreSQL and Redis each keep some for themselves."""

AMBIGUOUS_CHARACTERS = frozenset(',"@')
"""PostgreSQL and libpq read lists of hosts and abstract sockets into these."""


def socket_folder(preferred: Path, socket_name: str) -> Path:
    """`preferred` if a socket of that name fits there, else a folder under the temporary one named by a hash.

    The answer is the same each time, so it is found again after a crash. Nothing is created.
    """
    if _fits(preferred / socket_name):
        return preferred
    name = f"segint-{os.geteuid()}-{hashlib.sha256(os.fsencode(preferred)).hexdigest()[:12]}"
    for base in (Path(tempfile.gettempdir()).resolve(), Path("/tmp")):  # noqa: S108 # owner-checked below
        if _fits(base / name / socket_name):
            return base / name
    raise DataDirUnusable(f"No folder is short enough for the socket {socket_name}; set TMPDIR to a shorter path.")


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= LONGEST_SOCKET_PATH_BYTES and not AMBIGUOUS_CHARACTERS & set(str(path))


def make_private(folder: Path, *, owner: int | None = None) -> None:
    """Create the folder with mode 0700, or check that the one there is private already.

    Args:
        folder: its parent exists.
        owner: user id it belongs to; None for whoever runs this.

    Raises:
        DataDirUnusable: it belongs to somebody else, or is no folder.
    """
    expected = os.geteuid() if owner is None else owner
    try:
        folder.mkdir(mode=0o700)
        if owner is not None:
            os.chown(folder, owner, -1)
    except FileExistsError:
        pass
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != expected:
        raise DataDirUnusable(f"{folder} is not a folder that belongs to user {expected}; remove it and try again.")
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)


def remove_if_made(folder: Path, preferred: Path, socket_name: str) -> None:
    """Remove a short folder and the socket in it; `preferred` itself is left alone."""
    if folder == preferred or not folder.is_dir():
        return
    for name in (socket_name, f"{socket_name}.lock"):
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
