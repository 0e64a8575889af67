"""`python -m migrations upgrade` and `python -m migrations wait`: what a deployment runs before its services start.

A composition root: it reads SEGINT_DATABASE_URL and SEGINT_MIGRATION_DATABASE_URL and nothing else, so that a migration
needs no other setting. Where both are set, the second one's role migrates, and the first one's gets what the services
need. Both steps wait for a database that cannot be reached yet, and leave one alone that is newer than this code.
"""

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence

from psycopg.errors import InsufficientPrivilege
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

from services.core import logs
from services.core.db import migrate, roles
from services.core.db.session import Database, driver_url
from services.core.errors import DatabaseUnavailable

logger = logging.getLogger("migrations")

DEFAULT_LIMIT_SECONDS = 300.0
"""As long as a PostgreSQL that is started together with this may take, recovery included."""
PAUSE_SECONDS = 1.0


class NotYet(Exception):
    """The database is not as it should be, but may become so; its text says how it is."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0 once the schema fits; 1, with one sentence on stderr, where it does not within the limit."""
    given = _parser().parse_args(arguments)
    database_url = os.environ.get("SEGINT_DATABASE_URL", "")
    owner_url = os.environ.get("SEGINT_MIGRATION_DATABASE_URL") or database_url
    steps: dict[str, Callable[[], None]] = {
        "upgrade": lambda: upgrade(owner_url, database_url),
        "wait": lambda: wait(database_url),
    }
    logs.configure("INFO")
    try:
        if not database_url:
            raise DatabaseUnavailable("SEGINT_DATABASE_URL is not set; give it the URL of PostgreSQL.")
        driver_url(database_url)  # one that cannot be read does not become better by waiting
        if owner_url != database_url:
            driver_url(owner_url, "SEGINT_MIGRATION_DATABASE_URL")
        _repeat(steps[given.step], given.limit_seconds)
    except DatabaseUnavailable as error:
        sys.stderr.write(f"{error.summary}: {error.details}\n")
        return 1
    except NotYet as error:
        sys.stderr.write(f"Given up after {given.limit_seconds:g} s: {error}\n")
        return 1
    except DBAPIError as error:
        sys.stderr.write(f"The migration failed, and the schema is as it was before it: {_first_line(error)}\n")
        return 1
    return 0


def upgrade(owner_url: str, database_url: str) -> None:
    """Bring the schema to this code's and let the services' role work on it, unless it is newer.

    Raises:
        NotYet: PostgreSQL is away, or somebody else held a table for longer than a migration waits for it.
        DatabaseUnavailable: the services' role cannot be bound.
    """
    revision = _revision(owner_url)
    if revision is not None and migrate.schema_fits(revision):
        logger.info("nothing to migrate", extra={"revision": revision, "needed": migrate.head()})
        if revision != migrate.head():
            return
    else:
        _migrate(owner_url)
        logger.info("migrated", extra={"before": revision, "revision": migrate.head()})
    roles.bind(owner_url, database_url)


def _migrate(owner_url: str) -> None:
    try:
        migrate.upgrade(owner_url)
    except DatabaseUnavailable as error:
        raise NotYet(error.details) from error
    except OperationalError as error:
        raise NotYet(f"PostgreSQL did not let the schema be changed ({_first_line(error)}).") from error


def wait(database_url: str) -> None:
    """Look whether the schema is this code's or newer.

    Raises:
        NotYet: it is not, or PostgreSQL is away.
    """
    revision = _revision(database_url)
    if not migrate.schema_fits(revision):
        raise NotYet(
            f"the schema is {'empty' if revision is None else f'at {revision}'} and has to be at {migrate.head()}; "
            "run `python -m migrations upgrade`, or see why the migration that should have done it did not."
        )
    logger.info("the schema fits", extra={"revision": revision, "needed": migrate.head()})


def _revision(database_url: str) -> str | None:
    database = Database(database_url)
    try:
        return database.run(migrate.current)
    except DatabaseUnavailable as error:
        raise NotYet(error.details) from error
    except ProgrammingError as error:
        if not isinstance(error.orig, InsufficientPrivilege):
            raise
        # Between the first migration and the grants that follow it.
        raise NotYet("the role of SEGINT_DATABASE_URL may not read the schema's revision yet.") from error
    finally:
        database.close()


def _repeat(step: Callable[[], None], limit_seconds: float) -> None:
    """Until it succeeds; raises its last NotYet when it has not within the limit."""
    deadline = time.monotonic() + limit_seconds
    told = ""
    while True:
        try:
            return step()
        except NotYet as error:
            if time.monotonic() + PAUSE_SECONDS > deadline:
                raise
            if str(error) != told:
                told = str(error)
                logger.warning("waiting", extra={"reason": told})
        time.sleep(PAUSE_SECONDS)


def _first_line(error: DBAPIError) -> str:
    return (str(error.orig).strip().splitlines() or [type(error.orig).__name__])[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m migrations", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    for name, text in (
        (
            "upgrade",
            "migrate the database that SEGINT_DATABASE_URL names to the schema of this code, as the role of "
            "SEGINT_MIGRATION_DATABASE_URL where that is set",
        ),
        ("wait", "return once its schema is that of this code or newer"),
    ):
        step = steps.add_parser(name, help=text, description=text)
        step.add_argument(
            "--limit-seconds",
            type=float,
            default=DEFAULT_LIMIT_SECONDS,
            metavar="N",
            help="give up after so long (default: %(default)g)",
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
