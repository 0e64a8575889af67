"""Changes made in the console: in a thread, in one transaction with the entry that the audit keeps of them."""

from collections.abc import Callable
from typing import TypeVar

from anyio import to_thread
from starlette.requests import Request

from services.api.console.page import account_of
from services.core.audit import Details
from services.core.db import audit
from services.core.db.session import Database, Session

T = TypeVar("T")


class Changes:
    """Runs changes on the console's own connections, so that a slow one keeps no client of the API waiting."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def make(
        self,
        request: Request,
        action: str,
        subject: str,
        work: Callable[[Session], T],
        details: Details | Callable[[T], Details] | None = None,
    ) -> T:
        """What `work` gives; the change and its audit entry stand or fall together.

        Args:
            details: what the entry tells besides, or what makes that of what `work` gives.

        Raises: what `work` raises, and DatabaseUnavailable.
        """
        actor = account_of(request).actor

        def in_one_transaction(session: Session) -> T:
            result = work(session)
            session.flush()
            told = details(result) if callable(details) else details
            audit.record(session, actor=actor, action=action, subject=subject, details=told)
            return result

        return await to_thread.run_sync(self._database.run, in_one_transaction)

    async def run(self, work: Callable[[Session], T]) -> T:
        """What `work` gives, which leaves its own entry in the audit. Raises as `make` does."""
        return await to_thread.run_sync(self._database.run, work)
