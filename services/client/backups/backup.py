"""Making a backup of a deployment that runs, and a deployment of a backup.

The database comes first, then the volume. A file is written before the row that names it, so whatever the dump names
is on the volume by then; what was written since is a file that no row names, which the janitor deletes one day. The
other way round, rows would name files that are not there.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from services.client.backups import dump
from services.client.backups.archive import DUMP, FORMAT, MANIFEST, VOLUME, Archive, ArchiveWriter, Manifest
from services.client.backups.archive import manifest_document as document_of
from services.client.backups.faults import BackupFailed, BackupUnusable, NotEmpty
from services.client.local.data_dir import DataDir
from services.client.local.postgres import DATABASE, LocalPostgres
from services.core.blobs import FOLDERS, IDENTITY_FILE, Blobs
from services.core.db import migrate, roles, volume_identity
from services.core.db.session import Database
from services.core.errors import SegIntError
from services.core.pending_file import PARTIAL_SUFFIX
from services.core.settings import Settings

LOST_AND_FOUND = "lost+found"
"""Of a file system that is empty all the same."""


def make_backup(settings: Settings, out: Path, *, local: bool) -> Manifest:
    """Write a backup of the running deployment to `out`, which appears once it is whole.

    Raises:
        BackupFailed: `out` cannot be written, or pg_dump refused.
        DatabaseUnavailable, StorageAway: the database or its volume is not there.
    """
    database = Database(settings.database_url)
    try:
        revision = database.run(migrate.current)
        if revision is None:
            raise BackupFailed("The database is empty; there is nothing to back up.")
        identity = database.run(volume_identity.known_identity)
    finally:
        database.close()
    if identity is not None:
        Blobs(settings.volume_dir).require(identity)
    made_at = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = Manifest(FORMAT, version("segint"), revision, identity, made_at)
    part = out.with_name(out.name + ".part")
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".segint-backup-") as folder:
            dumped = Path(folder) / DUMP
            dump.dump(settings.database_url, dumped, local=local)
            with part.open("xb") as stream:
                part.chmod(0o600)  # scans, masks and hashes of passwords are in it
                writer = ArchiveWriter(stream)
                writer.add_document(MANIFEST, document_of(manifest))
                writer.add_file(DUMP, dumped)
                for path in _files_of(settings.volume_dir):
                    writer.add_file(f"{VOLUME}/{path.relative_to(settings.volume_dir).as_posix()}", path)
                writer.finish()
            part.replace(out)
    except FileExistsError as error:
        raise BackupFailed(f"{part} is there: another backup is being made, or one broke off; remove it.") from error
    except OSError as error:
        part.unlink(missing_ok=True)
        raise BackupFailed(f"{out} cannot be written ({error.strerror or error}).") from error
    except SegIntError:
        part.unlink(missing_ok=True)
        raise
    return manifest


def restore_to_data_dir(archive: Archive, data_dir: DataDir) -> int:
    """Make a local deployment of a backup, which `segint up` starts then; returns how many files its volume has.

    Raises:
        BackupUnusable: it is of a newer version.
        NotEmpty: the folder has something in it.
        BackupFailed: pg_restore refused.
    """
    check_version(archive)
    if data_dir.root.exists() and any(data_dir.root.iterdir()):
        raise NotEmpty(f"{data_dir.root} is not empty; name a folder that is, with --data-dir.")
    data_dir.create()
    lock = data_dir.try_lock()
    if lock is None:
        raise NotEmpty(f"Something is being started in {data_dir.root}.")
    try:
        with LocalPostgres(data_dir.postgres) as server:
            server.create_database(DATABASE)
            return _restore(archive, server.url(DATABASE), data_dir.volume, local=True)
    finally:
        os.close(lock)


def restore_to_servers(archive: Archive, settings: Settings) -> int:
    """Fill the empty database and volume that the settings name; returns how many files the volume has.

    Raises:
        As `restore_to_data_dir`; DatabaseUnavailable.
    """
    check_version(archive)
    owner_url = settings.migration_database_url or settings.database_url
    database = Database(owner_url)
    try:
        if database.run(migrate.current) is not None:
            raise NotEmpty("The database that SEGINT_DATABASE_URL names is not empty; make one that is.")
    finally:
        database.close()
    if any(path.name != LOST_AND_FOUND for path in settings.volume_dir.iterdir()):
        raise NotEmpty(f"{settings.volume_dir} is not empty; mount a volume that is.")
    count = _restore(archive, owner_url, settings.volume_dir, local=False)
    if owner_url != settings.database_url:
        roles.bind(owner_url, settings.database_url)
    return count


def check_version(archive: Archive) -> None:
    """Raises BackupUnusable where this code does not know the backup's schema."""
    manifest = archive.manifest
    if manifest.revision not in migrate.known_revisions():
        raise BackupUnusable(
            f"{archive.path} was made by segint {manifest.version} with a schema ({manifest.revision}) that this "
            f"version ({version('segint')}) does not know; restore it with that version or a newer one."
        )


def _restore(archive: Archive, database_url: str, volume_dir: Path, *, local: bool) -> int:
    """The database first: over a volume without its database a new one would be made, to which all files are strays."""
    with _dumped(archive) as dumped:
        dump.restore(database_url, dumped, local=local)
    Blobs(volume_dir).prepare()  # an archive has no empty folders
    return archive.extract_volume(volume_dir)


@contextmanager
def _dumped(archive: Archive) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=archive.path.parent, prefix=".segint-restore-") as folder:
        dumped = Path(folder) / DUMP
        archive.extract_dump(dumped)
        yield dumped


def _files_of(volume_dir: Path) -> Iterator[Path]:
    """What rows may name; nothing that is still being written, and no stranger's files."""
    identity = volume_dir / IDENTITY_FILE
    if identity.exists():
        yield identity
    for folder in FOLDERS:
        for path in sorted((volume_dir / folder).rglob("*")):
            if path.is_file() and path.suffix != PARTIAL_SUFFIX:
                yield path
