"""Connections: work is one transaction, in either kind of pool; what the driver raises becomes ours."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from services.client.local.postgres import LocalPostgres
from services.core.db import jobs
from services.core.db.session import READ_CONNECTIONS, AsyncDatabase, Database, Session, driver_url
from services.core.db.tables import SegmentationJobRow as Row
from services.core.errors import DatabaseUnavailable
from tests.core.db.job_rows import Jobs, new_job
from tests.ports import free_port


@pytest.mark.parametrize(
    "url",
    [
        *("", "nonsense", "/var/lib", "postgresql", "sqlite://", "mysql://root@host/db", "redis://host"),
        *("postgresql://user@host:port/db", "postgresql://[::1/db"),
    ],
)
def test_a_url_that_is_not_postgresqls_says_what_to_write(url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="SEGINT_DATABASE_URL"):
        Database(url)
    with pytest.raises(DatabaseUnavailable, match="SEGINT_DATABASE_URL"):
        AsyncDatabase(url)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg2", "postgresql+asyncpg"])
def test_every_spelling_of_postgresql_is_driven_by_psycopg(scheme: str) -> None:
    assert driver_url(f"{scheme}://u:p@h:1/d").render_as_string(hide_password=False) == "postgresql+psycopg://u:p@h:1/d"


def test_a_server_that_is_not_there_is_unavailable() -> None:
    unavailable(f"postgresql://user:secret@127.0.0.1:{free_port()}/db", "refused")


def test_a_database_that_is_not_there_is_unavailable(postgres: LocalPostgres) -> None:
    unavailable(postgres.url("nowhere"), "nowhere")


def test_a_socket_that_is_not_there_is_unavailable() -> None:
    unavailable("postgresql:///db?host=/nowhere", "nowhere")


def test_a_statement_that_takes_too_long_is_unavailable(database: Database) -> None:
    def wait(session: Session) -> None:
        session.execute(text("SET LOCAL statement_timeout = 20"))
        session.execute(text("SELECT pg_sleep(60)"))

    with pytest.raises(DatabaseUnavailable, match="statement timeout"):
        database.run(wait)


def test_every_statement_has_a_limit_and_times_are_utc(database: Database) -> None:
    assert database.run(lambda session: session.scalar(text("SHOW statement_timeout"))) == "15s"
    assert database.run(lambda session: session.scalar(text("SHOW timezone"))) == "UTC"


def test_a_client_that_stops_in_mid_transaction_holds_no_lock_for_long(database: Database) -> None:
    shown = database.run(lambda session: session.scalar(text("SHOW idle_in_transaction_session_timeout")))
    assert shown == "10s"
    began, may_go_on = threading.Event(), threading.Event()

    def stop_half_way(session: Session) -> None:
        session.execute(text("SELECT pg_advisory_xact_lock(4711)"))
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 100"))
        began.set()
        may_go_on.wait(20)
        session.execute(text("SELECT 1"))

    def try_it() -> None:
        with pytest.raises(DatabaseUnavailable):
            database.run(stop_half_way)

    # Given a client that holds a lock and says nothing more
    with ThreadPoolExecutor(1) as executor:
        stopped = executor.submit(try_it)
        assert began.wait(20)
        # When somebody else wants it, Then they get it
        database.run(lambda session: session.execute(text("SELECT pg_advisory_xact_lock(4711)")))
        # and the client is told once it goes on
        may_go_on.set()
        stopped.result()


def test_a_connection_that_is_cut_is_unavailable_and_the_next_one_works(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        database.run(lambda session: session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())")))
    assert database.run(lambda session: session.scalar(text("SELECT 1"))) == 1


def test_idle_connections_that_were_cut_cost_no_request(new_database: Callable[[], str], database: Database) -> None:
    # Given a pool with an idle connection, which the server cuts
    other = Database(new_database(), pool_size=1)
    pid = other.run(lambda session: session.scalar(text("SELECT pg_backend_pid()")))
    cut = text("SELECT pg_terminate_backend(:pid, 5000)")
    assert database.run(lambda session: session.scalar(cut, {"pid": pid}))
    # When work comes, Then it is done
    assert other.run(lambda session: session.scalar(text("SELECT 2"))) == 2
    other.close()


def test_a_backend_that_is_frozen_is_given_up_and_replaced(new_database: Callable[[], str]) -> None:
    # Given a pool with an idle connection, whose backend freezes
    database = Database(new_database(), pool_size=1, answer_timeout_seconds=0.5)
    pid = database.run(lambda session: session.scalar(text("SELECT pg_backend_pid()")))
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGSTOP)
    try:
        # When work comes, Then it is done over another connection
        started = time.monotonic()
        assert database.run(lambda session: session.scalar(text("SELECT pg_backend_pid()"))) != pid
        assert time.monotonic() - started < 5
    finally:
        os.kill(pid, signal.SIGCONT)
    database.close()


def test_a_backend_that_freezes_at_work_is_unavailable_in_time(new_database: Callable[[], str]) -> None:
    database = Database(new_database(), answer_timeout_seconds=0.5)
    frozen: list[int] = []

    def freeze(session: Session) -> None:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
        assert isinstance(pid, int)
        frozen.append(pid)
        os.kill(pid, signal.SIGSTOP)
        session.execute(text("SELECT 1"))

    started = time.monotonic()
    try:
        with pytest.raises(DatabaseUnavailable, match="did not answer"):
            database.run(freeze)
        assert time.monotonic() - started < 5
        assert database.run(lambda session: session.scalar(text("SELECT 1"))) == 1
    finally:
        os.kill(frozen[0], signal.SIGCONT)
    database.close()


def test_a_pool_without_a_free_connection_is_unavailable(
    new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a pool all of whose connections are at work
    database = Database(new_database(), pool_size=1)
    monkeypatch.setattr(database.engine.pool, "_timeout", 0.05)
    depth = 3

    def use_another(session: Session, left: int) -> None:
        session.execute(text("SELECT 1"))
        if left:
            database.run(use_another, left - 1)

    # When one more is wanted, Then it is told so in time
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailable, match="QueuePool limit"):
        database.run(use_another, depth)
    assert time.monotonic() - started < 5
    database.close()


def test_faults_of_the_work_stay_what_they_are(jobs_at_hand: Jobs) -> None:
    with pytest.raises(ProgrammingError):
        jobs_at_hand.database.run(lambda session: session.execute(text("SELECT nonsense")))
    with pytest.raises(IntegrityError):
        jobs_at_hand.database.run(jobs.accept, new_job(uuid4(), model_id="nowhere"))


def test_work_that_raises_leaves_nothing(jobs_at_hand: Jobs) -> None:
    job_id = uuid4()

    def accept_and_fail(session: Session) -> None:
        jobs.accept(session, new_job(job_id))
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        jobs_at_hand.database.run(accept_and_fail)
    with pytest.raises(LookupError, match="no"):
        asyncio.run(run_async(jobs_at_hand.database, accept_and_fail))
    assert jobs_at_hand.database.run(jobs.find, job_id) is None


def test_both_pools_run_the_same_work(jobs_at_hand: Jobs) -> None:
    # Given a job accepted through the asynchronous pool
    job = new_job(uuid4())
    accepted = asyncio.run(run_async(jobs_at_hand.database, lambda session: jobs.accept(session, job)))
    # Then either finds the same
    assert jobs_at_hand.database.run(jobs.find, job.id) == accepted
    assert asyncio.run(run_async(jobs_at_hand.database, lambda session: jobs.find(session, job.id))) == accepted
    # and values read stay usable when their session is gone
    row = jobs_at_hand.database.run(lambda session: session.get(Row, job.id))
    assert row is not None
    assert row.voxel_count == job.voxel_count


def test_a_read_begins_no_transaction_and_finds_what_was_committed(jobs_at_hand: Jobs) -> None:
    job = new_job(uuid4())
    accepted = jobs_at_hand.database.run(jobs.accept, job)
    pool = AsyncDatabase(jobs_at_hand.database.engine.url.render_as_string(hide_password=False))

    def times_of_two_statements(session: Session) -> set[object]:
        return {session.scalar(text("SELECT transaction_timestamp()")) for _ in range(2)}

    async def read() -> tuple[object, set[object]]:
        try:
            return await pool.read(jobs.find, job.id), await pool.read(times_of_two_statements)
        finally:
            await pool.close()

    found, times = asyncio.run(read())
    assert found == accepted
    # Each statement is a transaction of its own.
    assert len(times) == 2


def test_connections_that_were_cut_cost_no_read(new_database: Callable[[], str], database: Database) -> None:
    # Given a pool with all of its connections for reads, idle, which the server cuts
    pool = AsyncDatabase(new_database())

    def cut(session: Session, pid: object) -> object:
        return session.scalar(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

    def pid_of_this_connection(session: Session) -> object:
        return session.scalar(text("SELECT pg_backend_pid() FROM pg_sleep(0.1)"))

    async def read_again() -> set[object]:
        try:
            reads = [pool.read(pid_of_this_connection) for _ in range(READ_CONNECTIONS)]
            pids = set(await asyncio.gather(*reads))
            assert len(pids) == READ_CONNECTIONS
            for pid in pids:
                assert database.run(cut, pid)
            # When as many reads come at once, Then each is answered
            return pids & set(await asyncio.gather(*[pool.read(pid_of_this_connection) for _ in reads]))
        finally:
            await pool.close()

    assert asyncio.run(read_again()) == set()


def test_a_read_is_not_repeated_for_its_own_fault(new_database: Callable[[], str]) -> None:
    pool = AsyncDatabase(new_database())
    asked: list[int] = []

    def ask_nonsense(session: Session) -> None:
        asked.append(1)
        session.execute(text("SELECT nonsense"))

    async def read() -> None:
        try:
            await pool.read(ask_nonsense)
        finally:
            await pool.close()

    with pytest.raises(ProgrammingError):
        asyncio.run(read())
    assert len(asked) == 1


def test_passwords_stay_out_of_messages() -> None:
    database = Database(f"postgresql://user:secret@127.0.0.1:{free_port()}/db")
    with pytest.raises(DatabaseUnavailable) as caught:
        database.run(lambda session: session.execute(text("SELECT 1")))
    assert "secret" not in str(caught.value)


def unavailable(url: str, said: str) -> None:
    """Both pools say so, and soon."""
    started = time.monotonic()
    database = Database(url)
    with pytest.raises(DatabaseUnavailable, match=said):
        database.run(lambda session: session.execute(text("SELECT 1")))
    database.close()

    async def ask() -> None:
        pool = AsyncDatabase(url)
        try:
            await pool.run(lambda session: session.execute(text("SELECT 1")))
        finally:
            await pool.close()

    with pytest.raises(DatabaseUnavailable, match=said):
        asyncio.run(ask())
    assert time.monotonic() - started < 10


async def run_async(database: Database, work: Callable[[Session], object]) -> object:
    """Run `work` in an asynchronous pool on the same database."""
    pool = AsyncDatabase(database.engine.url.render_as_string(hide_password=False))
    try:
        return await pool.run(work)
    finally:
        await pool.close()
