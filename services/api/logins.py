"""Logging in to the console: passwords are checked in a few threads, so that nobody's poll waits for them."""

from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio import to_thread
from starlette.requests import Request

from services.api.addresses import client_address
from services.core.accounts import Account
from services.core.db import accounts
from services.core.db.session import Database, Session
from services.core.errors import TooManyLogins
from services.core.networks import networks
from services.core.settings import Settings

T = TypeVar("T")

AT_ONCE = 2
"""Each takes 64 MiB and about 0.1 s of a processor."""
MOST_WAITING = 20
"""Two seconds' worth; more is no group of people."""


class Logins:
    """One per process; close it."""

    def __init__(self, settings: Settings) -> None:
        self._proxies = networks(settings.trusted_proxies)
        self._database = Database(settings.database_url, pool_size=AT_ONCE)
        self._turns = anyio.CapacityLimiter(AT_ONCE)
        self._inside = 0

    async def log_in(self, request: Request, name: str, password: str) -> Account:
        """The account of that name and password.

        Raises:
            LoginRefused: there is no such account, or another password, or it is disabled.
            LoginThrottled: too many attempts failed before.
            TooManyLogins: too many people log in at this moment.
            DatabaseUnavailable: PostgreSQL cannot be reached.
        """
        return await self._in_turn(request, lambda session, address: accounts.log_in(session, name, password, address))

    async def change_password(
        self, request: Request, account: Account, current: str, password: str, then: Callable[[Session, Account], T]
    ) -> T:
        """Give `account` another password if `current` is its own; then what `then` gives, in the same transaction.

        Raises: as `log_in` does, and InvalidAccount where the new password cannot be taken.
        """

        def work(session: Session, address: str) -> T:
            changed = accounts.change_own_password(
                session, account, current=current, password=password, address=address
            )
            return then(session, changed)

        return await self._in_turn(request, work)

    async def _in_turn(self, request: Request, work: Callable[[Session, str], T]) -> T:
        if self._inside >= AT_ONCE + MOST_WAITING:
            raise TooManyLogins("Too many people log in at this moment; try again in a few seconds.")
        address = client_address(request, self._proxies)
        self._inside += 1
        try:
            return await to_thread.run_sync(lambda: self._database.run(work, address), limiter=self._turns)
        finally:
            self._inside -= 1

    def close(self) -> None:
        """Close the connections."""
        self._database.close()
