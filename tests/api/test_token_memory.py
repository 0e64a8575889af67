"""A token that was found good is remembered for seconds: polls cost no look-up, and outages refuse nobody at once."""

import asyncio
import base64
from collections.abc import Callable, Coroutine
from typing import Any

import hypothesis
import psycopg
import pytest
from hypothesis import strategies as st
from sqlalchemy import event
from starlette.requests import Request

from services.api import auth
from services.api.auth import REMEMBERED_SECONDS, Authenticator
from services.client.local.postgres import LocalPostgres
from services.core.db import tokens
from services.core.db.session import AsyncDatabase, Database
from services.core.errors import DatabaseUnavailable, NotAuthenticated
from services.core.settings import Settings

Work = Callable[[Authenticator, AsyncDatabase], Coroutine[Any, Any, None]]


class Clock:
    """In place of the monotonic one of the authenticator."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(auth, "time", clock)
    return clock


@pytest.fixture
def settings(new_settings: Callable[..., Settings]) -> Settings:
    return new_settings()


@pytest.fixture
def administer(settings: Settings) -> Callable[..., Any]:
    """Does one thing in the database of `settings`."""

    def run(work: Callable[..., Any], *arguments: object, **options: object) -> Any:
        database = Database(settings.database_url)
        try:
            return database.run(lambda session: work(session, *arguments, **options))
        finally:
            database.close()

    return run


@pytest.fixture
def secret(administer: Callable[..., Any]) -> str:
    _, secret = administer(tokens.create_token, name="ci", scopes=["read"], actor="command")
    return str(secret)


def with_authenticator(settings: Settings, work: Work) -> None:
    async def run() -> None:
        database = AsyncDatabase(settings.database_url)
        try:
            await work(Authenticator(settings, database), database)
        finally:
            await database.close()

    asyncio.run(run())


def request(secret: str) -> Request:
    return request_with(f"Bearer {secret}".encode())


def request_with(authorization: bytes) -> Request:
    headers = [(b"authorization", authorization)]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": headers, "client": ("192.0.2.1", 1)})


SCHEMES = st.sampled_from([b"", b"Bearer ", b"bearer  ", b"Basic ", b"BASIC ", b"Digest ", b"Bearer\t"])
VALUES = st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(base64.b64encode))


def test_no_header_but_the_tokens_own_lets_anybody_in(settings: Settings, secret: str) -> None:
    async def work(authenticator: Authenticator, _: AsyncDatabase) -> None:
        for header in headers:
            with pytest.raises(NotAuthenticated):
                await authenticator.caller(request_with(header))

    headers: list[bytes] = []

    @hypothesis.settings(max_examples=300, database=None)
    @hypothesis.given(SCHEMES, VALUES)
    def collect(scheme: bytes, value: bytes) -> None:
        headers.append(scheme + value)

    collect()
    near = [secret[:-1], secret + "=", secret.upper(), f"Bearer {secret[:-1]}", f"Bearer x{secret}", f"Token {secret}"]
    headers += [text.encode() for text in near]
    with_authenticator(settings, work)


def test_a_revoked_token_is_refused_once_it_is_forgotten(
    settings: Settings, administer: Callable[..., Any], secret: str, clock: Clock
) -> None:
    async def work(authenticator: Authenticator, _: AsyncDatabase) -> None:
        # Given a token that was used, and is revoked then
        assert (await authenticator.caller(request(secret))).actor == "token:ci"
        administer(tokens.revoke_token, "ci", actor="command")
        # Then it passes no longer than it is remembered for, however often it is used meanwhile
        for _step in range(4):
            await authenticator.caller(request(secret))
            clock.seconds += REMEMBERED_SECONDS / 4
        with pytest.raises(NotAuthenticated):
            await authenticator.caller(request(secret))

    with_authenticator(settings, work)


def test_polls_do_not_ask_the_database_each_time(settings: Settings, secret: str, clock: Clock) -> None:
    async def work(authenticator: Authenticator, database: AsyncDatabase) -> None:
        statements: list[str] = []

        def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            statements.append(statement)

        for engine in (database.engine, database._reads):
            event.listen(engine.sync_engine, "before_cursor_execute", count)
        # When a token is used often, Then it is looked up once, and its use noted once
        for _poll in range(50):
            await authenticator.caller(request(secret))
        assert [statement.split()[0] for statement in statements] == ["SELECT", "UPDATE"]
        # and looked up again, but not noted, in the next seconds
        clock.seconds += REMEMBERED_SECONDS
        for _poll in range(50):
            await authenticator.caller(request(secret))
        assert [statement.split()[0] for statement in statements] == ["SELECT", "UPDATE", "SELECT"]

    with_authenticator(settings, work)


def test_while_the_database_is_away_a_remembered_token_goes_on_and_another_is_503(
    settings: Settings, postgres: LocalPostgres, secret: str, clock: Clock
) -> None:
    async def work(authenticator: Authenticator, _: AsyncDatabase) -> None:
        # Given a token that is in use, and a database that lets nobody in any more
        await authenticator.caller(request(secret))
        name = settings.database_url.rpartition("/")[2].partition("?")[0]
        with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
            connection.execute("UPDATE pg_database SET datallowconn = false WHERE datname = %s", [name])
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        # Then it is let in as long as it is remembered; whether another is good cannot be told
        assert (await authenticator.caller(request(secret))).actor == "token:ci"
        with pytest.raises(DatabaseUnavailable):
            await authenticator.caller(request("segint_other"))
        clock.seconds += REMEMBERED_SECONDS
        with pytest.raises(DatabaseUnavailable):
            await authenticator.caller(request(secret))

    with_authenticator(settings, work)
