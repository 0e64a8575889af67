"""The guide's way to restore a release that is installed, with its own commands."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from services.client.backups.archive import Archive
from services.client.backups.backup import make_backup, restore_to_servers
from services.client.backups.faults import NotEmpty
from services.client.local.postgres import LocalPostgres
from services.client.local.postgres_wheel import binary
from services.core.blobs import IDENTITY_FILE, Blobs
from services.core.db import volume_identity
from services.core.db.session import Database
from services.core.settings import Settings
from tests.charts.rendering import CHART

ROOT = CHART.parents[1]
GUIDE = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")


def guides(beginning: str) -> str:
    """The command of the guide that begins so."""
    (found,) = re.findall(rf"^{re.escape(beginning)}.*$", GUIDE, re.MULTILINE)
    return str(found)


def test_the_guides_commands_empty_what_an_installation_filled(
    postgres: LocalPostgres, new_settings: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Given a backup, and a release that the chart has installed elsewhere: migrated, and with a volume of its own
    ours, installed = new_settings(), new_settings()
    identities = [start(settings) for settings in (ours, installed)]
    file = tmp_path_factory.mktemp("backup") / "backup.tar"
    make_backup(ours, file, local=True)
    backup = Archive.open(file)
    with pytest.raises(NotEmpty, match="The database"):
        restore_to_servers(backup, installed)
    # When its database is made anew, the volume is still not empty
    database = psycopg.conninfo.conninfo_to_dict(installed.database_url)["dbname"]
    remake = guides("psql ").replace("OWNER segint_owner", "").replace("DATABASE segint", f'DATABASE "{database}"')
    run(remake, ADMIN_URL=postgres.url("postgres"))
    with pytest.raises(NotEmpty, match="is not empty"):
        restore_to_servers(backup, installed)
    # And when that is cleared, but for what is a file system's own
    (installed.volume_dir / "lost+found").mkdir()
    run(guides("find "), SEGINT_VOLUME_DIR=str(installed.volume_dir))
    # Then it is restored, with the backup's identity, and the schema is this version's
    restore_to_servers(backup, installed)
    assert (installed.volume_dir / IDENTITY_FILE).read_text().strip() == identities[0] != identities[1]
    run(guides("python -m migrations"), SEGINT_DATABASE_URL=installed.database_url)


def start(settings: Settings) -> str:
    """Do what the first pod does on a volume; gives its identity."""
    database = Database(settings.database_url)
    try:
        return database.run(volume_identity.settle_identity, Blobs(settings.volume_dir).mark)
    finally:
        database.close()


def run(command: str, **environment: str) -> None:
    """In a shell, with the programs of this installation."""
    path = os.pathsep.join((str(Path(sys.executable).parent), str(binary("psql").parent), os.environ["PATH"]))
    environment |= {"PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
