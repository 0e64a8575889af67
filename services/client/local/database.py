"""The database of a deployment, for commands that administer it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from services.core.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from services.core.db.session import Database


@contextmanager
def opened_database(data_dir: Path | None) -> "Iterator[Database]":
    """The database that `local_settings` finds.

    Raises:
        NotRunning: there is none to be found.
        DatabaseUnavailable: it cannot be reached, or has another version's schema.
    """
    from services.client.local.settings import local_settings
    from services.core.db import migrate
    from services.core.db.session import Database

    database = Database(local_settings(data_dir).database_url)
    try:
        current = database.run(migrate.current)
        if not migrate.schema_fits(current):
            raise DatabaseUnavailable(
                f"The database's schema is at {current or 'nothing'}, this version needs {migrate.head()}; run the "
                "migrations first."
            )
        yield database
    finally:
        database.close()
