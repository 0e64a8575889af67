"""`python -m migrations`: what a deployment runs before its services start, against a real PostgreSQL."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from sqlalchemy import text

from services.client.local.postgres import LocalPostgres
from services.core.db import migrate
from services.core.db.session import Database
from tests.database_roles import as_role
from tests.ports import free_port

LIMIT_SECONDS = 60.0
NEWER = "9999"
"""A revision that this code does not know."""


@contextmanager
def migrations(*arguments: str, url: str | None, owner: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed should the test end before it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEGINT_")}
    environment |= {} if url is None else {"SEGINT_DATABASE_URL": url}
    environment |= {} if owner is None else {"SEGINT_MIGRATION_DATABASE_URL": owner}
    command = [sys.executable, "-m", "migrations", *arguments]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, encoding="utf-8") as process:
        try:
            yield process
        finally:
            process.kill()


def outcome(*arguments: str, url: str | None, owner: str | None = None) -> tuple[int, str]:
    """Exit code and what it said."""
    with migrations(*arguments, url=url, owner=owner) as process:
        said = process.communicate(timeout=LIMIT_SECONDS)[1]
        return process.returncode, said


@contextmanager
def opened(url: str) -> Iterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        database.close()


def revision_of(url: str) -> str | None:
    with opened(url) as database:
        return database.run(migrate.current)


def set_revision(url: str, revision: str) -> None:
    with opened(url) as database:
        database.run(
            lambda session: session.execute(text("UPDATE alembic_version SET version_num = :r"), {"r": revision})
        )


def first_waiting_line(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if "waiting" in line:
            return line
    raise AssertionError("it ended without waiting")


def test_two_at_once_migrate_and_one_that_waits_goes_on(empty_database: Callable[[], str]) -> None:
    # Given an empty database that somebody waits for
    url = empty_database()
    with migrations("wait", url=url) as waiting:
        assert "the schema is empty" in first_waiting_line(waiting)
        # When two migrate it at once
        with migrations("upgrade", url=url) as one, migrations("upgrade", url=url) as other:
            said = [process.communicate(timeout=LIMIT_SECONDS)[1] for process in (one, other)]
        # Then both succeed, and whoever waited goes on
        assert [one.returncode, other.returncode] == [0, 0], said
        assert revision_of(url) == migrate.head()
        assert "the schema fits" in waiting.communicate(timeout=LIMIT_SECONDS)[1]
        assert waiting.returncode == 0


def test_a_schema_that_is_behind_is_not_waited_for_without_end_and_is_upgraded(
    empty_database: Callable[[], str],
) -> None:
    # Given a database of an older release
    url = empty_database()
    migrate.upgrade(url, "0002")
    # When its services wait, Then they are told after the limit what is missing
    code, said = outcome("wait", "--limit-seconds", "0", url=url)
    assert code == 1
    assert said.splitlines()[-1].startswith("Given up after 0 s: the schema is at 0002 and has to be at ")
    assert "Traceback" not in said
    # and an upgrade lets them start
    assert outcome("upgrade", url=url)[0] == 0
    assert outcome("wait", "--limit-seconds", "0", url=url)[0] == 0


def test_a_schema_that_is_ahead_is_left_alone_and_fits(new_database: Callable[[], str]) -> None:
    # Given the database of a newer release, which was rolled back
    url = new_database()
    set_revision(url, NEWER)
    # When this one migrates and waits, Then both succeed and change nothing
    assert outcome("upgrade", "--limit-seconds", "0", url=url)[0] == 0
    assert outcome("wait", "--limit-seconds", "0", url=url)[0] == 0
    assert revision_of(url) == NEWER


def test_the_owner_migrates_and_the_services_role_waits_until_it_may_read(new_database: Callable[[], str]) -> None:
    # Given a schema whose grants are not made yet
    owner = new_database()
    role = f"r_{uuid4().hex}"
    url = as_role(owner, role)
    with opened(owner) as database:
        database.run(lambda session: session.execute(text(f"CREATE ROLE {role} LOGIN")))
    with migrations("wait", url=url) as waiting:
        assert "may not read the schema's revision yet" in first_waiting_line(waiting)
        # When the owner's upgrade has come so far, Then whoever waited goes on
        code, said = outcome("upgrade", url=url, owner=owner)
        assert code == 0, said
        assert "the services' role is bound" in said
        assert waiting.communicate(timeout=LIMIT_SECONDS)[1].count("the schema fits") == 1


def test_one_role_for_both_is_told(new_database: Callable[[], str]) -> None:
    assert "the services' role owns the schema and could change the audit" in outcome("upgrade", url=new_database())[1]


def test_a_database_that_starts_later_is_waited_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    # Given no server where the URL points
    server = LocalPostgres(tmp_path_factory.mktemp("pg"), fsync=False)
    server.prepare()
    url = server.url("postgres")
    with migrations("upgrade", url=url) as process:
        assert "PostgreSQL cannot be used right now" in first_waiting_line(process)
        # When it starts, Then it is migrated
        with server:
            said = process.communicate(timeout=LIMIT_SECONDS)[1]
            assert process.returncode == 0, said
            assert revision_of(url) == migrate.head()


@pytest.mark.parametrize("step", ["upgrade", "wait"])
def test_a_database_that_stays_away_is_one_sentence(step: str) -> None:
    url = f"postgresql://nobody:secret@127.0.0.1:{free_port()}/nowhere"
    code, said = outcome(step, "--limit-seconds", "0", url=url)
    assert code == 1
    assert said.startswith("Given up after 0 s: PostgreSQL cannot be used right now")
    assert said.count("\n") == 1
    assert "secret" not in said


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (None, "Database unavailable: SEGINT_DATABASE_URL is not set; "),
        ("mysql://somewhere/else", "Database unavailable: SEGINT_DATABASE_URL names mysql; "),
    ],
    ids=["missing", "another database"],
)
def test_a_url_that_cannot_be_used_is_told_at_once(url: str | None, sentence: str) -> None:
    code, said = outcome("wait", url=url)
    assert (code, said[: len(sentence)]) == (1, sentence)
