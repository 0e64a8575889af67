"""The file of a backup: a tar whose last member has the SHA-256 of all others, so that half of one is never used.

`manifest.json`, `database.dump` (PostgreSQL's custom format), `volume/…`, `checksums.json`.
"""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

from services.client.backups.faults import BackupUnusable

FORMAT = 1
MANIFEST, DUMP, VOLUME, CHECKSUMS = "manifest.json", "database.dump", "volume", "checksums.json"
PIECE_BYTES = 1 << 20
MOST_DOCUMENT_BYTES = 256 << 20
"""Of the manifest and the checksums, each some hundred bytes for a file of the volume."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in a backup."""

    format: int
    version: str
    """Of SegInt, when it was made."""
    revision: str
    """Of the database's schema."""
    volume_identity: str | None
    made_at: str
    """UTC, ISO 8601."""


class _Hashing:
    """Reads from a stream and remembers the digest of what was read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        piece = self._stream.read(size)
        self.digest.update(piece)
        return piece


class ArchiveWriter:
    """Writes one, from its beginning to its end. `finish` makes it whole."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 # closed by `finish`
        self._checksums: dict[str, str] = {}

    def add_document(self, name: str, document: Mapping[str, Any]) -> None:
        content = json.dumps(document, indent=1).encode()
        self._add(tarfile.TarInfo(name), io.BytesIO(content), len(content))

    def add_file(self, name: str, path: Path) -> bool:
        """False where the file has been deleted meanwhile, as that of an expired job."""
        try:
            stream = path.open("rb")
        except FileNotFoundError:
            return False
        with stream:
            member = self._tar.gettarinfo(arcname=name, fileobj=stream)
            self._add(member, stream, member.size)
        return True

    def finish(self) -> None:
        self.add_document(CHECKSUMS, self._checksums)
        self._tar.close()

    def _add(self, member: tarfile.TarInfo, stream: IO[bytes], size: int) -> None:
        member.size = size
        hashing = _Hashing(stream)
        self._tar.addfile(member, hashing)
        self._checksums[member.name] = hashing.digest.hexdigest()


class Archive:
    """A backup that is whole: see `open`."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read all of it once and compare every digest.

        Raises:
            BackupUnusable: it is no backup, or is not whole.
        """
        digests: dict[str, str] = {}
        documents: dict[str, Any] = {}
        with _faults_as_ours(path):
            for member, stream in _members(path):
                hashing = _Hashing(stream)
                if member.name in (MANIFEST, CHECKSUMS):
                    with suppress(ValueError):  # it is missed below
                        documents[member.name] = json.loads(hashing.read(MOST_DOCUMENT_BYTES))
                while hashing.read(PIECE_BYTES):
                    pass
                digests[member.name] = hashing.digest.hexdigest()
        expected = documents.get(CHECKSUMS)
        digests.pop(CHECKSUMS, None)
        if not isinstance(expected, dict):
            raise BackupUnusable(f"{path} is no backup of SegInt, or its end is missing; take another one.")
        for name in sorted(expected.keys() | digests.keys()):
            if expected.get(name) != digests.get(name):
                raise BackupUnusable(f"{path} is damaged: {name} is not what was backed up; take another backup.")
        try:
            manifest = Manifest(**documents[MANIFEST])
        except (KeyError, TypeError) as error:
            raise BackupUnusable(f"{path} was made by a version whose backups this one cannot read.") from error
        if manifest.format != FORMAT:
            raise BackupUnusable(f"{path} has format {manifest.format}, and this version reads {FORMAT} only.")
        return cls(path, manifest)

    def extract_dump(self, target: Path) -> None:
        """Write the database's dump to `target`."""
        for member, stream in _members(self.path):
            if member.name == DUMP:
                with target.open("wb") as output:
                    shutil.copyfileobj(stream, output, PIECE_BYTES)
                return

    def extract_volume(self, root: Path) -> int:
        """Write the volume's files below `root`; returns how many.

        Raises:
            BackupUnusable: a name leads out of it.
        """
        count = 0
        for member, stream in _members(self.path):
            parts = PurePosixPath(member.name).parts
            if parts[0] != VOLUME or len(parts) < 2:
                continue
            if ".." in parts:
                raise BackupUnusable(f"{self.path} names {member.name}, which is not in a volume.")
            target = root.joinpath(*parts[1:])
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as output:
                shutil.copyfileobj(stream, output, PIECE_BYTES)
            target.chmod(member.mode & 0o777)
            count += 1
        return count


def manifest_document(manifest: Manifest) -> dict[str, Any]:
    return asdict(manifest)


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            stream = tar.extractfile(member)
            if stream is not None:
                with stream:
                    yield member, stream


@contextmanager
def _faults_as_ours(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError) as error:
        raise BackupUnusable(f"{path} is no backup of SegInt, or is not whole ({error}); take another one.") from error
    except OSError as error:
        raise BackupUnusable(f"{path} cannot be read ({error.strerror or error}).") from error
