"""Logging in and out of the console, and telling starlette-admin who is there."""

import logging

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates
from starlette_admin.auth import AdminUser, BaseAuthProvider
from starlette_admin.helpers import safe_redirect_url

from services.api.console import cookies
from services.api.console.sessions import Sessions
from services.api.error_responses import status_of
from services.api.logins import Logins
from services.core.accounts import Account
from services.core.db import audit, console_sessions
from services.core.db.session import Database, Session
from services.core.errors import LoginRefused, LoginThrottled, Unavailable
from services.core.networks import Networks

logger = logging.getLogger(__name__)

MOST_TYPED = 4096
"""Characters of a name or password that are looked at."""
INSECURE = (
    "This page came over plain HTTP from another machine, where everybody on the way could read the password. Open the "
    "console over HTTPS, or on the server itself by http://127.0.0.1."
)


class Login(BaseAuthProvider):
    """starlette-admin's authentication by the console's own sessions.

    Args:
        proxies: those whose word on HTTPS and addresses counts.
    """

    def __init__(self, logins: Logins, database: Database, sessions: Sessions, proxies: Networks) -> None:
        super().__init__(login_path="/login", logout_path="/logout")
        self._logins = logins
        self._database = database
        self._sessions = sessions
        self._proxies = proxies

    async def authenticate(self, request: Request) -> AdminUser | None:
        """Whom the gate found."""
        account: Account | None = request.state.account
        return None if account is None else AdminUser(username=account.name)

    def get_routes(self, templates: Jinja2Templates) -> list[Route]:
        """The login page, and the way out."""

        async def login(request: Request) -> Response:
            return await self._login(request, templates)

        return [
            Route(self.login_path, login, methods=["GET", "POST"], name="login"),
            Route(self.logout_path, self._logout, methods=["POST"], name="logout"),
        ]

    async def _login(self, request: Request, templates: Jinja2Templates) -> Response:
        index = str(request.url_for("admin:index"))
        target = safe_redirect_url(request.query_params.get("next") or index, request, index)
        if request.state.account is not None and request.method == "GET":
            return RedirectResponse(target, 303)

        def page(error: str | None, status: int) -> Response:
            return templates.TemplateResponse(request, "login.html", {"error": error}, status_code=status)

        if not cookies.may_carry_secrets(request, self._proxies):
            return page(INSECURE, 403)
        if request.method == "GET":
            return page(None, 200)
        form = await request.form()
        name, password = str(form.get("username") or "")[:MOST_TYPED], str(form.get("password") or "")[:MOST_TYPED]
        try:
            account = await self._logins.log_in(request, name, password)
        except (LoginRefused, LoginThrottled, Unavailable) as error:
            return page(error.details, status_of(error))
        session = await to_thread.run_sync(self._database.run, self._begin, account, request.state.console_session)
        response = RedirectResponse(target, 303)
        cookies.forget(response, cookies.BEFORE_LOGIN)
        self._sessions.give(response, request, session)
        return response

    def _begin(self, session: Session, account: Account, earlier: str | None) -> str:
        if earlier is not None:
            console_sessions.end(session, earlier)
        return self._sessions.begin(session, account)

    async def _logout(self, request: Request) -> Response:
        identifier, account = request.state.console_session, request.state.account
        if identifier is not None and account is not None:
            await to_thread.run_sync(self._database.run, self._end, account, identifier)
        response = RedirectResponse(str(request.url_for("admin:login")), 303)
        cookies.forget(response, cookies.SESSION, cookies.CSRF)
        return response

    def _end(self, session: Session, account: Account, identifier: str) -> None:
        console_sessions.end(session, identifier)
        audit.record(session, actor=account.actor, action="logout", subject=account.actor)
