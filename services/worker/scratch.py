"""Folders on local disk that model hosts may write to, with a limit, and gone when their owner is."""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path

ENTRY_BYTES = 4096
"""Every entry counts for at least a disk block, so that a million empty files have a size too."""


class ScratchFolder:
    """One host's folder: its HOME, its TMPDIR and its working directory."""

    def __init__(self, parent: Path, limit_bytes: int) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="host-", dir=parent))
        self.limit_bytes = limit_bytes

    def used_bytes(self) -> int:
        """What the files take on disk. Counting stops above the limit."""
        used = 0
        folders = [str(self.path)]
        while folders and used <= self.limit_bytes:
            # The model writes and deletes meanwhile: what vanishes while it is looked at counts for nothing.
            with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        status = entry.stat(follow_symlinks=False)
                        used += max(status.st_blocks * 512, ENTRY_BYTES)
                        if stat.S_ISDIR(status.st_mode):
                            folders.append(entry.path)
        return used

    def remove(self) -> None:
        """Delete the folder and everything in it. Removing twice is allowed."""
        remove_tree(self.path)


class ScratchRoot:
    """One pool's folder below `root`, locked while the pool lives.

    A worker that was killed cannot tidy up: the next one on the same disk removes every folder whose lock is free.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        # Held over sweeping and creating, or another pool would sweep a folder that is not locked yet.
        with (root / ".lock").open("w") as root_lock:
            fcntl.flock(root_lock, fcntl.LOCK_EX)
            _sweep(root)
            self.path = Path(tempfile.mkdtemp(prefix="worker-", dir=root))
            self._lock = (self.path / ".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Delete the folder, then give up its lock. Removing twice is allowed."""
        remove_tree(self.path)
        self._lock.close()


def _sweep(root: Path) -> None:
    for folder in root.glob("worker-*"):
        try:
            with (folder / ".lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError:
            pass  # no lock file: its pool ended before it made one
        remove_tree(folder)


def remove_tree(path: Path) -> None:
    """Delete a tree as far as it can be deleted, folders that a model made unwritable included."""
    shutil.rmtree(path, ignore_errors=True)
    if not path.exists():
        return
    for folder, _, _ in os.walk(path):
        with contextlib.suppress(OSError):
            Path(folder).chmod(stat.S_IRWXU)
    shutil.rmtree(path, ignore_errors=True)
