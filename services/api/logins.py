"""Logging in to the console: passwords are checked in a few threads, so that nobody's poll waits for them."""

import anyio
from anyio import to_thread
from starlette.requests import Request

from services.api.addresses import client_address
from services.core.accounts import Account
from services.core.db import accounts
from services.core.db.session import Database
from services.core.errors import TooManyLogins
from services.core.networks import networks
from services.core.settings import Settings

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
        if self._inside >= AT_ONCE + MOST_WAITING:
            raise TooManyLogins("Too many people log in at this moment; try again in a few seconds.")
        address = client_address(request, self._proxies)
        self._inside += 1
        try:
            return await to_thread.run_sync(
                lambda: self._database.run(accounts.log_in, name, password, address), limiter=self._turns
            )
        finally:
            self._inside -= 1

    def close(self) -> None:
        """Close the connections."""
        self._database.close()
