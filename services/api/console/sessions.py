"""Who a request comes from: the session that its cookie names, looked up at every request."""

from starlette.requests import Request
from starlette.responses import Response

from services.api.console import cookies
from services.api.console.secrets import BrowserSecrets
from services.core.accounts import Account
from services.core.db import console_sessions
from services.core.db.console_sessions import SessionLimits
from services.core.db.session import AsyncDatabase, Session

BACKGROUND_HEADER = "X-Console-Background"
"""Requests that a page makes by itself carry it: a list left open must not keep its session from going idle."""


class Sessions:
    """The console's sessions in PostgreSQL. The cookie holds an identifier, signed; the database what it is worth."""

    def __init__(self, database: AsyncDatabase, secrets: BrowserSecrets, limits: SessionLimits) -> None:
        self._database = database
        self._secrets = secrets
        self._limits = limits

    async def of(self, request: Request) -> tuple[str, Account] | tuple[None, None]:
        """The session and its account; twice None where there is none, or it is over.

        Raises:
            DatabaseUnavailable: it cannot be told.
        """
        identifier = self._secrets.read(request.cookies.get(cookies.SESSION))
        if identifier is None:
            return None, None
        by_hand = BACKGROUND_HEADER not in request.headers
        account = await self._database.run(console_sessions.find, identifier, self._limits, by_hand=by_hand)
        return (None, None) if account is None else (identifier, account)

    def begin(self, session: Session, account: Account) -> str:
        """A new session of that account, in the caller's transaction; never one that the browser brought along."""
        identifier = self._secrets.new_session()
        console_sessions.begin(session, identifier, account, self._limits)
        return identifier

    def give(self, response: Response, request: Request, identifier: str) -> None:
        """Have the browser keep the session, and the token for its changes where the page's scripts find it."""
        cookies.put(response, request, cookies.SESSION, self._secrets.signed(identifier))
        cookies.put(response, request, cookies.CSRF, self._secrets.csrf_token(identifier), readable=True)
