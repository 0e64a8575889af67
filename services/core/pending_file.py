"""A file on its way to the volume: written under a temporary name, flushed, and renamed, or gone."""

import errno
import hashlib
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self
from uuid import uuid4

from services.core.errors import StorageAway, StorageFull

PARTIAL_SUFFIX = ".part"
PAYLOAD_MODE = 0o640
"""Payloads are people's scans: readable by the service's group at most."""
SYNC_BYTES = 16 << 20
"""Large files go to the disk while they are written, so that the last flush does not wait for all of it."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FAILING = frozenset({errno.EIO, errno.EROFS, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ENODEV})
"""What a disk or a network filesystem says when it is in trouble, whoever asks for what."""


@contextmanager
def volume_faults_as_ours() -> Iterator[None]:
    """Turn «no space», «over quota» and «file too large» into StorageFull, and a failing mount into StorageAway."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(
                "The server's volume for payloads is full; try again later, or ask its administrator to free space."
            ) from error
        if error.errno in _FAILING:
            raise StorageAway(
                f"The server's volume for payloads fails ({error.strerror}); try again later, or ask its administrator "
                "to look at the mount."
            ) from error
        raise


class PendingFile:
    """A file being written under its temporary name. Leaving the context without `commit` deletes it.

    Args:
        target: the name that `commit` gives it.
        shared: whether others may write `target` at the same time; the last one to commit replaces the others'.
    """

    def __init__(self, target: Path, *, shared: bool = False) -> None:
        self.target = target
        own = f".{uuid4().hex}" if shared else ""
        self.partial = target.with_name(target.name + own + PARTIAL_SUFFIX)
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._synced_bytes = 0
        # A request that is cancelled leaves the context while a thread may still write.
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        with volume_faults_as_ours():
            descriptor = os.open(self.partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PAYLOAD_MODE)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
            self.partial.unlink(missing_ok=True)

    @property
    def sha256(self) -> str:
        """Digest of what was written, hexadecimal."""
        return self._digest.hexdigest()

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`.

        Raises:
            StorageFull: the volume has no room for it.
        """
        with self._lock, volume_faults_as_ours():
            file = self._open_file()
            view = memoryview(data)
            self._digest.update(view)
            while view:
                written = file.write(view)
                self.size_bytes += written
                view = view[written:]
            if self.size_bytes - self._synced_bytes >= SYNC_BYTES:
                os.fdatasync(file.fileno())
                self._synced_bytes = self.size_bytes

    def write_all(self, parts: Iterable[bytes | memoryview]) -> None:
        """Append each of `parts`; raises as `write` does."""
        for part in parts:
            self.write(part)

    def commit(self) -> None:
        """Flush to the disk and give the file its name.

        Raises:
            StorageFull: the volume has no room for it.
            StorageAway: the volume fails.
        """
        with self._lock, volume_faults_as_ours():
            file = self._open_file()
            os.fsync(file.fileno())
            file.close()
            self._file = None
            self.partial.rename(self.target)
            _sync_folder(self.target.parent)

    def _open_file(self) -> BinaryIO:
        if self._file is None:
            raise ValueError("the file is not open")
        return self._file


def _sync_folder(folder: Path) -> None:
    """Flush a rename. Some network filesystems refuse to sync a folder; they order renames themselves."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
