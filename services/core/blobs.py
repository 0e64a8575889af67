"""The mounted volume: `models/`, `modelfamily/`, `segmentation/`, `results/`.

Every file is written under a temporary name, flushed to the disk, and renamed: a reader finds a whole file or none.
Names are made here, from identifiers and random bits; a client's or an uploader's name never becomes a path.
"""

import errno
import hashlib
import mmap
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self
from uuid import UUID, uuid4

from services.core.catalogue import StoredFile
from services.core.errors import StorageFull

MODELS, FAMILIES, INPUTS, RESULTS = "models", "modelfamily", "segmentation", "results"
FOLDERS = (MODELS, FAMILIES, INPUTS, RESULTS)

PARTIAL_SUFFIX = ".part"
PAYLOAD_MODE = 0o640
"""Payloads are people's scans: readable by the service's group at most."""
COPY_BYTES = 1 << 20
SYNC_BYTES = 16 << 20
"""Large files go to the disk while they are written, so that the last flush does not wait for all of it."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NAME = re.compile(r"[0-9a-zA-Z][0-9a-zA-Z._-]*")


@contextmanager
def full_volume_as_ours() -> Iterator[None]:
    """Turn «no space», «over quota» and «file too large» into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(
                "The server's volume for payloads is full; try again later, or ask its administrator to free space."
            ) from error
        raise


def mapped(path: Path) -> memoryview:
    """The file's bytes, read from the page cache as they are touched.

    Unmapped with the last reference: an explicit close would fail while a traceback still holds a slice of it.

    Raises:
        FileNotFoundError: there is no such file.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:  # mmap refuses to map nothing
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


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
        self._file: BinaryIO | None = None
        self._synced_bytes = 0
        # A request that is cancelled leaves the context while a thread may still write.
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        with full_volume_as_ours():
            descriptor = os.open(self.partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PAYLOAD_MODE)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
            self.partial.unlink(missing_ok=True)

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`.

        Raises:
            StorageFull: the volume has no room for it.
        """
        with self._lock, full_volume_as_ours():
            file = self._open_file()
            view = memoryview(data)
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
        """
        with self._lock, full_volume_as_ours():
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


class Blobs:
    """The volume below `root`. Safe from any thread or process: no two writers share a name."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Make the four folders."""
        for folder in FOLDERS:
            (self.root / folder).mkdir(parents=True, exist_ok=True)

    def check(self) -> str | None:
        """None when files can be written, else what stands in the way."""
        probe = self.root / INPUTS / f".probe-{uuid4().hex}"
        try:
            probe.touch(exist_ok=False)
            probe.unlink()
        except OSError as error:
            return f"{self.root / INPUTS}: {error.strerror}"
        return None

    # Inputs and results

    def new_input(self, job_id: UUID) -> PendingFile:
        """The upload of a job, to be written."""
        return PendingFile(self.root / INPUTS / f"{job_id}.pb")

    def new_result(self, job_id: UUID, token: UUID) -> PendingFile:
        """The result of one attempt. The token keeps a fenced worker's file apart from the winner's."""
        return PendingFile(self.root / RESULTS / f"{job_id}.{token}.pb")

    def input_path(self, name: str) -> Path:
        """Where the input of that name is."""
        return self._path(INPUTS, name)

    def result_path(self, name: str) -> Path:
        """Where the result of that name is."""
        return self._path(RESULTS, name)

    def delete_input(self, name: str) -> None:
        """Delete an input; one that is gone already is no fault."""
        self.input_path(name).unlink(missing_ok=True)

    def delete_result(self, name: str) -> None:
        """Delete a result; one that is gone already is no fault."""
        self.result_path(name).unlink(missing_ok=True)

    def delete_attempt(self, job_id: UUID, token: UUID) -> None:
        """Delete what one attempt may have left, finished or not."""
        target = self.root / RESULTS / f"{job_id}.{token}.pb"
        target.unlink(missing_ok=True)
        target.with_name(target.name + PARTIAL_SUFFIX).unlink(missing_ok=True)

    # Models

    def store_model_file(self, source: Path) -> StoredFile:
        """Copy an uploaded model or module file onto the volume.

        Raises:
            OSError: `source` cannot be read.
            StorageFull: the volume has no room for it.
        """
        digest = hashlib.sha256()
        with source.open("rb") as file, PendingFile(self.root / MODELS / uuid4().hex) as pending:
            while piece := file.read(COPY_BYTES):
                digest.update(piece)
                pending.write(piece)
            pending.commit()
            # A file's name is bytes, which need not be text that can be kept.
            label = os.fsencode(source.name).decode(errors="replace")
            return StoredFile(pending.target.name, digest.hexdigest(), pending.size_bytes, label)

    def model_path(self, name: str) -> Path:
        """Where the model file of that name is."""
        return self._path(MODELS, name)

    def delete_model_file(self, name: str) -> None:
        """Delete a model file; one that is gone already is no fault."""
        self.model_path(name).unlink(missing_ok=True)

    # Published families

    def publish_family(self, family_number: int, message: bytes | None) -> None:
        """Write the family's published message, or remove it when nothing of it is published any more."""
        target = self.root / FAMILIES / f"{family_number}.pb"
        if message is None:
            target.unlink(missing_ok=True)
            return
        with PendingFile(target, shared=True) as pending:
            pending.write(message)
            pending.commit()

    def _path(self, folder: str, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(f"«{name}» is not a name that this server makes")
        return self.root / folder / name


def _sync_folder(folder: Path) -> None:
    """Flush a rename. Some network filesystems refuse to sync a folder; they order renames themselves."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
