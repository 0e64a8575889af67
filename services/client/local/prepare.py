"""Run once each time a deployment starts, after PostgreSQL: database, schema, roles, sample catalogue.

A process of its own (`python -m services.client.local.prepare`), so that the supervisor stays small and can stop it.
What it needs to know comes from the environment; the one argument, if given, is the folder of the local PostgreSQL.
"""

import sys
from pathlib import Path

from services.client.local.postgres import DATABASE, LocalPostgres
from services.client.local.sample import ensure_sample
from services.client.terminal import talk
from services.core.db import migrate, roles
from services.core.errors import SegIntError
from services.core.settings import read_settings


def main(arguments: list[str]) -> int:
    """Prepare the database that the environment names; 0 when it is ready."""
    try:
        settings = read_settings()
        if arguments:
            LocalPostgres(Path(arguments[0])).create_database(DATABASE)
        owner_url = settings.migration_database_url or settings.database_url
        migrate.upgrade(owner_url)
        roles.bind(owner_url, settings.database_url)
        for model_id in ensure_sample(settings):
            talk().print(f"sample model added: {model_id}", markup=False)
    except SegIntError as error:
        talk().print(f"{error.summary}: {error.details}", markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
