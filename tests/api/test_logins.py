"""Logging in beside everything else: others are not held up, and no more wait than can be served."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from starlette.requests import Request

from services.api import logins
from services.core import passwords
from services.core.db import accounts
from services.core.db.session import Database
from services.core.errors import LoginRefused, LoginThrottled, TooManyLogins
from services.core.settings import Settings
from tests.deployment import LIMIT_SECONDS

PASSWORD = "correct horse battery staple"


@pytest.fixture
def settings(new_settings: Callable[..., Settings]) -> Settings:
    settings = new_settings(trusted_proxies=("10.0.0.0/8",))
    database = Database(settings.database_url)
    database.run(
        lambda session: accounts.create_account(
            session, name="ada", password=PASSWORD, roles=["viewer"], actor="command"
        )
    )
    database.close()
    return settings


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[logins.Logins]:
    made = logins.Logins(settings)
    try:
        yield made
    finally:
        made.close()


def request(peer: str = "192.0.2.1", forwarded_for: str = "") -> Request:
    headers = [(b"x-forwarded-for", forwarded_for.encode())] if forwarded_for else []
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers, "client": (peer, 1)})


def test_a_name_and_its_password_log_in(settings: Settings) -> None:
    async def work() -> None:
        async with opened(settings) as made:
            assert (await made.log_in(request(), "ada", PASSWORD)).name == "ada"
            with pytest.raises(LoginRefused):
                await made.log_in(request(), "ada", "a wrong password")

    asyncio.run(work())


def test_a_forged_address_does_not_start_the_count_anew(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "fits", lambda *_: False)

    async def tried(made: logins.Logins, number: int, asked: Request) -> None:
        with pytest.raises((LoginRefused, LoginThrottled)):
            await made.log_in(asked, f"user{number}", PASSWORD)

    async def work() -> None:
        async with opened(settings) as made:
            # Given a client that says each time that it is another, to us and to a proxy of ours
            for peer, suffix in (("192.0.2.1", ""), ("10.0.0.1", ", 192.0.2.2")):
                for number in range(25):
                    await tried(made, number, request(peer, f"198.51.100.{number}{suffix}"))
                # Then it is throttled all the same, as itself
                with pytest.raises(LoginThrottled):
                    await made.log_in(request(peer, f"198.51.100.200{suffix}"), f"new {peer}", PASSWORD)

    asyncio.run(work())


def test_others_go_on_while_passwords_are_checked_and_a_crowd_is_turned_away(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given checks of passwords that end only when somebody else in this process got on
    others_got_on = threading.Event()
    monkeypatch.setattr(passwords, "fits", lambda *_: others_got_on.wait(LIMIT_SECONDS))
    monkeypatch.setattr(logins, "MOST_WAITING", 2)

    async def work() -> None:
        async with opened(settings) as made:
            # When more log in than may wait
            crowd = [asyncio.create_task(made.log_in(request(), "ada", PASSWORD)) for _ in range(8)]
            done, _ = await asyncio.wait(crowd, return_when=asyncio.FIRST_COMPLETED)
            others_got_on.set()
            outcomes = await asyncio.gather(*crowd, return_exceptions=True)
            # Then some are told to come back at once, and the others are in
            assert all(isinstance(task.exception(), TooManyLogins) for task in done)
            refused = [outcome for outcome in outcomes if isinstance(outcome, TooManyLogins)]
            assert len(refused) == 8 - logins.AT_ONCE - 2
            assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == logins.AT_ONCE + 2

    asyncio.run(work())
