"""The migrated schema is the declared one, and getting there is safe to repeat, to undo and to race for."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from services.core.db import migrate
from services.core.db.session import Database, Session
from services.core.db.tables import Base
from services.core.errors import DatabaseUnavailable
from tests.ports import free_port

PROCESSES = 3

COLUMNS = """
    SELECT table_name, column_name, data_type, udt_name, is_nullable, column_default, is_identity, identity_generation
    FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
"""
CONSTRAINTS = """
    SELECT conrelid::regclass::text, conname, contype::text, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND conrelid <> 'alembic_version'::regclass
"""
INDEXES = """
    SELECT tablename, indexname, indexdef FROM pg_indexes
    WHERE schemaname = 'public' AND tablename <> 'alembic_version'
"""
TRIGGERS = r"""
    SELECT event_object_table, trigger_name, action_timing, event_manipulation, action_statement
    FROM information_schema.triggers WHERE trigger_schema = 'public'
    UNION ALL
    SELECT tgrelid::regclass::text, tgname, tgtype::text, '', regexp_replace(prosrc, '\s+', ' ', 'g')
    FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid WHERE NOT tgisinternal
"""
EVERYTHING = """
    SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT typname::text FROM pg_type WHERE typnamespace = 'public'::regnamespace
    UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace
"""


@contextmanager
def opened(url: str) -> Iterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        database.close()


def execute(session: Session, statement: str) -> None:
    session.execute(text(statement))


def asked(url: str, query: str) -> list[tuple[object, ...]]:
    with opened(url) as database:
        return sorted(tuple(row) for row in database.run(lambda session: session.execute(text(query)).all()))


def revision_of(url: str) -> str | None:
    with opened(url) as database:
        return database.run(migrate.current)


@pytest.fixture(scope="module")
def migrated(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture(scope="module")
def declared(empty_database: Callable[[], str]) -> str:
    """Made from the declared tables, without migrations."""
    url = empty_database()
    with opened(url) as database:
        Base.metadata.create_all(database.engine)
        # Named by the queries above.
        database.run(execute, "CREATE TABLE alembic_version (version_num text)")
    return url


def test_nothing_would_be_migrated_from_head_to_what_is_declared(migrated: str) -> None:
    with opened(migrated) as database, database.engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


@pytest.mark.parametrize(
    ("query", "least"),
    [(COLUMNS, 100), (CONSTRAINTS, 30), (INDEXES, 20), (TRIGGERS, 3)],
    ids=["columns", "constraints", "indexes", "triggers"],
)
def test_the_migrated_schema_is_the_declared_one(migrated: str, declared: str, query: str, least: int) -> None:
    in_migrated, in_declared = (
        [tuple(str(value) for value in row) for row in asked(url, query)] for url in (migrated, declared)
    )
    assert in_migrated == in_declared
    assert len(in_migrated) >= least


def test_a_difference_would_be_seen(empty_database: Callable[[], str]) -> None:
    # Given a schema that lacks a check, has another index, and another default
    url = empty_database()
    migrate.upgrade(url)
    before = {query: asked(url, query) for query in (COLUMNS, CONSTRAINTS, INDEXES)}
    with opened(url) as database:
        for change in (
            "ALTER TABLE segmentation_job DROP CONSTRAINT ck_segmentation_job_state",
            "DROP INDEX ix_segmentation_job_lease",
            "ALTER TABLE segmentation_job ALTER attempt SET DEFAULT 1",
        ):
            database.run(execute, change)
    assert all(asked(url, query) != seen for query, seen in before.items())


def test_up_and_down_and_up_again(empty_database: Callable[[], str], migrated: str) -> None:
    # Given an empty database
    url = empty_database()
    assert revision_of(url) is None
    # When it is migrated, Then it is at the head; again changes nothing
    for _ in range(2):
        migrate.upgrade(url)
        assert revision_of(url) == migrate.head()
    # When it is migrated back, Then nothing of ours is left
    migrate.downgrade(url, "base")
    assert {str(name) for (name,) in asked(url, EVERYTHING)} <= {
        *("alembic_version", "_alembic_version", "alembic_version_pkc")
    }
    assert revision_of(url) is None
    # and it can come again
    migrate.upgrade(url)
    assert asked(url, CONSTRAINTS) == asked(migrated, CONSTRAINTS)


A_JOB = """
    INSERT INTO segmentation_job (id, model_id, priority, input_bytes, voxel_count)
    VALUES (gen_random_uuid(), 'one', 10, 1, 1)
"""
"""As a release before this one writes it."""


def test_a_filled_database_is_upgraded_and_serves_the_release_before_too(empty_database: Callable[[], str]) -> None:
    # Given a database of the release before with a job
    url = empty_database()
    migrate.upgrade(url, "0002")
    with opened(url) as database:
        for statement in (
            "INSERT INTO model_family (canonical_name) VALUES ('a family')",
            "INSERT INTO model_version (family_id, position, model_id) SELECT id, 0, 'one' FROM model_family",
            A_JOB,
        ):
            database.run(execute, statement)
        # When it is upgraded, and a process of that release, which runs still, accepts another
        migrate.upgrade(url)
        database.run(execute, A_JOB)
    # Then both are there, of nobody known
    query = "SELECT submitted_by, token_id, runtime, model_options FROM segmentation_job"
    assert asked(url, query) == [("", None, None, None)] * 2
    # and the way back loses neither
    migrate.downgrade(url, "0002")
    assert asked(url, "SELECT count(*) FROM segmentation_job") == [(2,)]


def test_processes_that_migrate_at_once_all_succeed(empty_database: Callable[[], str]) -> None:
    # Given an empty database, and processes that are told to migrate it by one keystroke
    url = empty_database()
    code = "import sys; from services.core.db import migrate; print(flush=True); input(); migrate.upgrade(sys.argv[1])"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        for _ in range(PROCESSES)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    # When they have ended, Then each found the schema made, by itself or another
    faults = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES, faults
    assert revision_of(url) == migrate.head()


def test_a_database_that_is_away_cannot_be_migrated() -> None:
    with pytest.raises(DatabaseUnavailable):
        migrate.upgrade(f"postgresql://nobody@127.0.0.1:{free_port()}/nowhere")


def test_this_code_works_on_its_head_and_on_what_is_newer(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given code that knows two revisions
    monkeypatch.setattr(migrate, "head", lambda: "0002")
    monkeypatch.setattr(migrate, "known_revisions", lambda: frozenset({"0001", "0002"}))
    # Then its head fits, and so does a revision that only newer code knows; an older one or none does not
    assert {revision: migrate.schema_fits(revision) for revision in ("0001", "0002", "0003", None)} == {
        "0001": False,
        "0002": True,
        "0003": True,
        None: False,
    }


def test_the_head_is_among_the_known_revisions() -> None:
    assert migrate.head() in migrate.known_revisions()
    assert migrate.schema_fits(migrate.head())
