"""Where whoever is logged in gives their account another password, which no administrator then knows."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette_admin.flash import flash
from starlette_admin.routing import route

from services.api.console import cookies
from services.api.console.login import INSECURE, MOST_TYPED
from services.api.console.page import Page, account_of
from services.api.console.sessions import Sessions
from services.api.error_responses import status_of
from services.api.logins import Logins
from services.core.accounts import LEAST_PASSWORD_CHARACTERS, Account
from services.core.db.session import Session
from services.core.errors import InvalidAccount, LoginRefused, LoginThrottled, Unavailable
from services.core.networks import Networks


class PasswordPage(Page):
    """One form: the current password, and the new one twice."""

    menu_label = "Password"
    icon = "fa-solid fa-key"
    path = "/password"
    route_name = "password"

    def __init__(self, logins: Logins, sessions: Sessions, proxies: Networks) -> None:
        super().__init__()
        self._logins = logins
        self._sessions = sessions
        self._proxies = proxies

    @route("", methods=["GET", "POST"])
    async def index(self, request: Request) -> Response:
        """The form, and what is done with it. The account's sessions end, and this browser gets a new one."""
        account = account_of(request)
        if not cookies.may_carry_secrets(request, self._proxies):
            return self._form(request, INSECURE, 403)
        if request.method == "GET":
            return self._form(request, None, 200)
        form = await request.form()
        current, password, again = (str(form.get(name) or "")[:MOST_TYPED] for name in ("current", "password", "again"))
        try:
            if password != again:
                raise InvalidAccount("The new password was typed in two ways; type it again.")
            session = await self._logins.change_password(request, account, current, password, self._begin)
        except (InvalidAccount, LoginRefused, LoginThrottled, Unavailable) as error:
            return self._form(request, error.details, status_of(error))
        flash(request, "Your password is another one now. Other browsers have to log in again.", "success")
        response = RedirectResponse(str(request.url_for("admin:index")), 303)
        self._sessions.give(response, request, session)
        return response

    def _begin(self, session: Session, account: Account) -> str:
        return self._sessions.begin(session, account)

    def _form(self, request: Request, error: str | None, status: int) -> Response:
        least = LEAST_PASSWORD_CHARACTERS
        return self.render(request, "console/password.html", status, error=error, least=least)
