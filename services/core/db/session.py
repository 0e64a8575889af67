"""Connections to PostgreSQL, and the one place where driver errors become ours.

Work is written once, as functions of a synchronous Session (`services.core.db.jobs` and its neighbours); the API
runs them through `AsyncDatabase`, workers and commands through `Database`. Engines must be made after a fork.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

from psycopg.errors import ReadOnlySqlTransaction
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from services.core.db.bounded_connection import BoundedConnection
from services.core.errors import DatabaseUnavailable

__all__ = ["AsyncDatabase", "Database", "Session", "driver_url", "refuses_writes"]
# Session is named here too: whoever composes work needs the type, and only this package knows SQLAlchemy.

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

STATEMENT_TIMEOUT_MS = 15_000
"""Far above any statement here; a longer one waits on something that will not come."""
CONNECT_TIMEOUT_SECONDS = 3
ANSWER_TIMEOUT_SECONDS = 20
"""The server enforces the statement time-out; a server that is frozen enforces nothing, so the client counts too."""
DEAD_NETWORK_MS = 20_000
IDLE_TRANSACTION_MS = 10_000
"""A client that is cut off or frozen between two statements would hold its locks for as long as TCP hopes for it: with
the janitor's, nothing would be tidied; with a job's, claims and reaping would pass over it."""
_SERVER_OPTIONS = {
    "statement_timeout": STATEMENT_TIMEOUT_MS,
    "idle_in_transaction_session_timeout": IDLE_TRANSACTION_MS,
    # The server notices within half a minute that the client's machine is gone.
    "tcp_keepalives_idle": 10,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 3,
    "timezone": "UTC",
}
POOL_TIMEOUT_SECONDS = 5

_ENGINE_OPTIONS: dict[str, Any] = {
    "pool_pre_ping": True,  # a restarted PostgreSQL then costs no request
    "pool_timeout": POOL_TIMEOUT_SECONDS,
    "hide_parameters": True,  # a traceback in the log must not quote what clients say of patients
    "connect_args": {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "tcp_user_timeout": DEAD_NETWORK_MS,
        "options": " ".join(f"-c {name}={value}" for name, value in _SERVER_OPTIONS.items()),
    },
}

READ_CONNECTIONS = 4
"""A read holds its connection for about a millisecond."""
_READ_OPTIONS: dict[str, Any] = {
    "pool_pre_ping": False,  # a read may be repeated instead
    "isolation_level": "AUTOCOMMIT",
}


def driver_url(url: str, variable: str = "SEGINT_DATABASE_URL") -> URL:
    """`url` with psycopg 3 as its driver; `variable` is where it came from.

    Raises:
        DatabaseUnavailable: it is not a PostgreSQL URL.
    """
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError) as error:  # ValueError: a port that is no number
        raise DatabaseUnavailable(
            f"{variable} is not a URL; write postgresql://user:password@host:port/database."
        ) from error
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise DatabaseUnavailable(
            f"{variable} names {parsed.get_backend_name()}; SegInt keeps its jobs in PostgreSQL only."
        )
    return parsed.set(drivername="postgresql+psycopg")


@contextmanager
def _driver_errors_as_ours() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        raise DatabaseUnavailable(f"PostgreSQL cannot be used right now ({_first_line(error)}); try again.") from error
    except DBAPIError as error:
        if isinstance(error.orig, ReadOnlySqlTransaction):
            raise DatabaseUnavailable(
                "PostgreSQL takes no writes (it is a standby, or set to read-only); point SEGINT_DATABASE_URL at the "
                "primary."
            ) from error
        if error.connection_invalidated:
            raise DatabaseUnavailable(
                f"PostgreSQL dropped the connection ({_first_line(error)}); try again."
            ) from error
        raise


def _first_line(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]


def refuses_writes(session: Session) -> bool:
    """Whether this server answers, but is a standby or set to read-only."""
    return bool(session.scalar(text("SHOW transaction_read_only")) == "on")


class Database:
    """A synchronous connection pool. Thread-safe.

    Args:
        url: the database's.
        pool_size: connections that are kept.
        answer_timeout_seconds: how long any one answer of the server is waited for.
    """

    def __init__(self, url: str, *, pool_size: int = 2, answer_timeout_seconds: float = ANSWER_TIMEOUT_SECONDS) -> None:
        self.engine: Engine = create_engine(driver_url(url), pool_size=pool_size, max_overflow=2, **_ENGINE_OPTIONS)

        @event.listens_for(self.engine, "do_connect")
        def connect(_dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> Any:
            connection = BoundedConnection.connect(*arguments, **options)
            connection.answer_timeout_seconds = answer_timeout_seconds
            return connection

        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    def run(self, work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in one transaction and commit it.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be reached, or did not answer in time.
        """
        with _driver_errors_as_ours(), self._sessions.begin() as session:
            return work(session, *args, **kwargs)

    def close(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()


class AsyncDatabase:
    """An asynchronous connection pool that runs the same work."""

    def __init__(self, url: str, *, pool_size: int = 8) -> None:
        self.engine = create_async_engine(driver_url(url), pool_size=pool_size, max_overflow=8, **_ENGINE_OPTIONS)
        self._reads = create_async_engine(
            driver_url(url), pool_size=READ_CONNECTIONS, max_overflow=0, **_ENGINE_OPTIONS | _READ_OPTIONS
        )
        self._abandoned: set[asyncio.Task[Any]] = set()
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False, class_=AsyncSession)

    async def run(self, work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in one transaction and commit it.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be reached, or did not answer in time.
        """
        return await self._answered(self._run(lambda session: work(session, *args, **kwargs)))

    async def read(self, work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work`, which only reads, without a transaction: each of its statements is one round trip and no more.

        Clients that wait poll several times a second; with a ping, a begin and a commit around it, each poll took
        twice the processor time.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be reached, or did not answer in time.
        """
        return await self._answered(self._read(lambda session: work(session, *args, **kwargs)))

    async def _answered(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives, unless that takes too long."""
        task = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait({task}, timeout=ANSWER_TIMEOUT_SECONDS)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            # Not awaited: ending the transaction would wait for the same server that does not answer.
            task.cancel()
            self._abandoned.add(task)
            task.add_done_callback(self._forget)
            raise DatabaseUnavailable(f"PostgreSQL did not answer within {ANSWER_TIMEOUT_SECONDS} s; try again.")
        return task.result()

    async def _run(self, work: Callable[[Session], T]) -> T:
        with _driver_errors_as_ours():
            async with self._sessions.begin() as session:
                return await session.run_sync(work)

    async def _read(self, work: Callable[[Session], T]) -> T:
        with _driver_errors_as_ours():
            try:
                return await self._read_once(work)
            except DBAPIError as error:
                # A connection that a restarted PostgreSQL dropped; the pool has forgotten it and its like.
                if not error.connection_invalidated:
                    raise
            return await self._read_once(work)

    async def _read_once(self, work: Callable[[Session], T]) -> T:
        def with_session(connection: Connection) -> T:
            with Session(connection) as session:
                return work(session)

        async with self._reads.connect() as connection:
            return await connection.run_sync(with_session)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.warning("abandoned transaction ended", extra={"reason": str(task.exception())})

    async def close(self) -> None:
        """Close the pooled connections."""
        await self.engine.dispose()
        await self._reads.dispose()
