"""The services' role: enough for all work, also on tables of later migrations, and no more of the audit than adding."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.core.db import audit, migrate, roles
from services.core.db.session import Database, Session
from services.core.errors import DatabaseUnavailable
from tests.database_roles import REFUSED, as_role


def execute(session: Session, *statements: str) -> None:
    for statement in statements:
        session.execute(text(statement))


def recorded(session: Session) -> None:
    audit.record(session, actor="command", action="a.b", subject="model:m")


@contextmanager
def opened(url: str) -> Iterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        database.close()


@pytest.fixture(scope="module")
def owner(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture(scope="module")
def application(owner: str) -> str:
    """Bound twice, as with every upgrade, and with a name that has to be quoted."""
    url = as_role(owner, f'a"%3A%20{uuid4().hex[:8]}')
    roles.bind(owner, url)
    roles.bind(owner, url)
    return url


@pytest.mark.parametrize("statement", REFUSED)
def test_it_adds_to_the_audit_and_can_do_nothing_else_with_it(application: str, statement: str) -> None:
    with opened(application) as database:
        database.run(recorded)
        with pytest.raises(DBAPIError, match=r"permission denied|must be owner"):
            database.run(execute, statement)
        assert database.run(audit.verify).sound


def test_it_works_on_tables_of_later_migrations(owner: str, application: str) -> None:
    # Given a table and a sequence that the owner makes afterwards
    with opened(owner) as database:
        database.run(execute, "CREATE TABLE later (id serial PRIMARY KEY, name text)")
    # Then the services' role has its way with their rows
    with opened(application) as database:
        database.run(
            execute,
            "INSERT INTO later (name) VALUES ('x')",
            "UPDATE later SET name = 'y'",
            "SELECT last_value FROM later_id_seq",
            "DELETE FROM later",
        )
        # and reads the revision that it waits for, but does not set it
        assert database.run(migrate.current) == migrate.head()
        with pytest.raises(DBAPIError, match="permission denied"):
            database.run(execute, "UPDATE alembic_version SET version_num = '1'")


def test_a_role_that_is_made_has_the_password_of_its_url(owner: str) -> None:
    role = f"r_{uuid4().hex}"
    roles.bind(owner, as_role(owner, f"{role}:se%3Acret"))
    with opened(owner) as database:
        stored = database.run(
            lambda session: session.scalar(
                text("SELECT rolpassword FROM pg_authid WHERE rolname = :role AND rolcanlogin"), {"role": role}
            )
        )
    assert str(stored).startswith("SCRAM-SHA-256$")


def test_a_role_that_could_change_the_audit_all_the_same_is_refused(owner: str) -> None:
    # Given a member of the owner
    role = f"r_{uuid4().hex}"
    with opened(owner) as database:
        database.run(execute, f"CREATE ROLE {role} LOGIN IN ROLE postgres")
    # When it is to be the services', Then the sentence says what to do
    with pytest.raises(DatabaseUnavailable, match=f"{role} could change the audit, because it is postgres, a member"):
        roles.bind(owner, as_role(owner, role))


def test_a_role_that_is_missing_and_may_not_be_made_is_told(owner: str, application: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="nobody_yet that SEGINT_DATABASE_URL names is not there"):
        roles.bind(application, as_role(owner, "nobody_yet"))


def test_who_does_not_own_the_tables_cannot_bind(owner: str, application: str) -> None:
    other = as_role(owner, f"r_{uuid4().hex}")
    roles.bind(owner, other)  # else it would have to be made
    with pytest.raises(DatabaseUnavailable, match="SEGINT_MIGRATION_DATABASE_URL has to name the role that owns"):
        roles.bind(application, other)
