"""Bring a database to the schema of this code, and tell whether it is there. `migrations/` holds the steps."""

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.orm import Session

import services
from services.core.db.session import Database

MIGRATIONS = Path(services.__file__).resolve().parent.parent / "migrations"
_VERSION_TABLE = "alembic_version"


def configuration(database_url: str) -> Config:
    """Alembic's configuration for `database_url`; there is no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["database_url"] = database_url
    return config


def upgrade(database_url: str, revision: str = "head") -> None:
    """Migrate to `revision`. Safe to run from several processes at once: an advisory lock lets one through.

    Raises:
        DatabaseUnavailable: PostgreSQL cannot be reached.
    """
    database = Database(database_url)
    try:
        database.run(lambda session: session.execute(text("SELECT 1")))
    finally:
        database.close()
    command.upgrade(configuration(database_url), revision)


def downgrade(database_url: str, revision: str) -> None:
    """Migrate back to `revision` ("base": an empty database)."""
    command.downgrade(configuration(database_url), revision)


@cache
def head() -> str:
    """The newest revision that this code has."""
    revision = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    if revision is None:
        raise RuntimeError(f"{MIGRATIONS} holds no migrations; the installation is incomplete")
    return revision


@cache
def known_revisions() -> frozenset[str]:
    """Every revision that this code has."""
    return frozenset(script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions())


def current(session: Session) -> str | None:
    """The database's revision; None before the first migration."""
    if not inspect(session.connection()).has_table(_VERSION_TABLE):
        return None
    revision: str | None = session.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def schema_fits(revision: str | None) -> bool:
    """Whether this code can work on `revision`: its own head, or a newer one that it does not know.

    Migrations expand before they contract, so that a rolled-back release keeps working on the newer schema.
    """
    return revision is not None and (revision == head() or revision not in known_revisions())
