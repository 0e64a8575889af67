"""The mounted volume: `models/`, `modelfamily/`, `segmentation/`, `results/`.

Every file is written under a temporary name, flushed to the disk, and renamed: a reader finds a whole file or none.
Names are made here, from identifiers and random bits; a client's or an uploader's name never becomes a path.
"""

import hashlib
import mmap
import os
import re
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from services.core.catalogue import StoredFile
from services.core.errors import StorageAway
from services.core.pending_file import PARTIAL_SUFFIX, PendingFile, volume_faults_as_ours

MODELS, FAMILIES, INPUTS, RESULTS = "models", "modelfamily", "segmentation", "results"
FOLDERS = (MODELS, FAMILIES, INPUTS, RESULTS)

PROBE_PREFIX = ".probe-"
IDENTITY_FILE = ".segint-volume"
"""In the volume's root: tells it from an empty mount point."""

COPY_BYTES = 1 << 20

_NAME = re.compile(r"[0-9a-zA-Z][0-9a-zA-Z._-]*")


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


@dataclass(frozen=True, slots=True)
class Room:
    """Room on a filesystem."""

    free_bytes: int
    total_bytes: int


class Blobs:
    """The volume below `root`. Safe from any thread or process: no two writers share a name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._has_folders = False

    def prepare(self) -> None:
        """Make the four folders."""
        for folder in FOLDERS:
            (self.root / folder).mkdir(parents=True, exist_ok=True)

    def mark(self) -> str:
        """Make this a volume of SegInt's, with its folders, unless it is one; returns its identity.

        One process at a time: two would each give it another.

        Raises:
            StorageAway: it cannot be read or written.
            StorageFull: it has no room at all.
        """
        try:
            self.prepare()
            found = self._identity()
        except OSError as error:
            raise _away(self.root, error) from error
        if found:
            return found
        identity = str(uuid4())
        with PendingFile(self.root / IDENTITY_FILE, shared=True) as pending:
            pending.write(f"{identity}\n".encode())
            pending.commit()
        return identity

    def require(self, identity: str) -> None:
        """Return where this is the volume of that identity.

        At first it gets the folders that it lacks, as one does that was copied without those that were empty.

        Raises:
            StorageAway: it is another one, none at all, or cannot be read.
        """
        try:
            found = self._identity()
            if found == identity and not self._has_folders:
                self.prepare()
                self._has_folders = True
        except OSError as error:
            raise _away(self.root, error) from error
        if found == identity:
            return
        what = f"{IDENTITY_FILE} is missing" if found is None else f"{IDENTITY_FILE} says {found}"
        raise StorageAway(
            f"What is mounted at {self.root} is not the volume that this database's jobs are on ({what}). Mount that "
            f"one; or, to go on with this one, write {identity} into {self.root / IDENTITY_FILE}."
        )

    def _identity(self) -> str | None:
        try:
            return (self.root / IDENTITY_FILE).read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return None

    def check(self) -> str | None:
        """None when files can be written, else what stands in the way."""
        probe = self.root / INPUTS / f"{PROBE_PREFIX}{uuid4().hex}"
        try:
            probe.touch(exist_ok=False)
            probe.unlink()
        except OSError as error:
            return f"{self.root / INPUTS}: {error.strerror}"
        return None

    def free_bytes(self) -> int | None:
        """Room that this process may still fill; None where the filesystem does not say.

        Raises:
            StorageAway: the volume is not there.
        """
        room = self.room()
        return None if room is None else room.free_bytes

    def room(self) -> Room | None:
        """How large the volume is, and what of it this process may still fill; None where it does not say.

        Raises:
            StorageAway: the volume is not there.
        """
        try:
            status = os.statvfs(self.root / INPUTS)
        except OSError as error:
            raise _away(self.root, error) from error
        if not status.f_blocks:
            return None
        return Room(status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize)

    # Inputs and results

    def new_input(self, job_id: UUID) -> PendingFile:
        """The upload of a job, to be written."""
        return PendingFile(self.root / INPUTS / f"{job_id}.pb")

    def same_input(self, name: str, job_id: UUID) -> str:
        """The input `name` once more, as that of another job; each is deleted by itself. Gives its name.

        Raises:
            FileNotFoundError: it is not on the volume any more.
            StorageFull, StorageAway: it cannot be written.
        """
        source, target = self.input_path(name), self.root / INPUTS / f"{job_id}.pb"
        try:
            with volume_faults_as_ours():
                os.link(source, target)  # the bytes are never changed, so two names may share them
        except FileNotFoundError:
            raise
        except OSError:  # a filesystem without hard links
            with source.open("rb") as file, PendingFile(target) as pending:
                while piece := file.read(COPY_BYTES):
                    pending.write(piece)
                pending.commit()
        return target.name

    def new_result(self, job_id: UUID, token: UUID) -> PendingFile:
        """The result of one attempt. The token keeps a fenced worker's file apart from the winner's."""
        return PendingFile(self.root / RESULTS / f"{job_id}.{token}.pb")

    def input_path(self, name: str) -> Path:
        """Where the input of that name is."""
        return self._path(INPUTS, name)

    def result_path(self, name: str) -> Path:
        """Where the result of that name is."""
        return self._path(RESULTS, name)

    def what_is_wrong_with_result(self, name: str, sha256: str | None) -> str | None:
        """None when the result of that name is whole, else what happened to it, to follow «The result».

        Args:
            sha256: what its bytes must hash to, hexadecimal; None where that is not known.

        Ask `require` first: an empty mount point says nothing of what was lost.

        Raises:
            StorageAway: it cannot be told, because the volume cannot be read.
        """
        try:
            with self.result_path(name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return "is not on the server's volume any more"
        except OSError as error:
            raise _away(self.root, error) from error
        return None if sha256 in (None, digest) else "was damaged on the server's volume"

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

    def delete_stray(self, folder: str, name: str) -> None:
        """Delete a file that `strays.files_on_volume` listed; one that is gone already is no fault."""
        (self.root / folder / name).unlink(missing_ok=True)

    # Models

    def store_model_file(self, source: Path) -> StoredFile:
        """Copy an uploaded model or module file onto the volume.

        Raises:
            OSError: `source` cannot be read.
            StorageFull: the volume has no room for it.
        """
        with source.open("rb") as file, PendingFile(self.root / MODELS / uuid4().hex) as pending:
            while piece := file.read(COPY_BYTES):
                pending.write(piece)
            pending.commit()
            # A file's name is bytes, which need not be text that can be kept.
            label = os.fsencode(source.name).decode(errors="replace")
            return StoredFile(pending.target.name, pending.sha256, pending.size_bytes, label)

    def new_model_file(self) -> PendingFile:
        """A model or module file that is being uploaded, to be written."""
        return PendingFile(self.root / MODELS / uuid4().hex)

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


def _away(root: Path, error: OSError) -> StorageAway:
    return StorageAway(
        f"The server's volume for payloads at {root} cannot be read ({error.strerror}); try again later, or ask its "
        "administrator to look at the mount."
    )
