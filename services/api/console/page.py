"""What the console's own pages have in common: who may see them, and how they answer."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette_admin.views import CustomView

from services.api.error_responses import status_of
from services.core.accounts import Account, Permission
from services.core.errors import NotPermitted, SegIntError

PageT = TypeVar("PageT")


def account_of(request: Request) -> Account:
    """Who asks.

    Raises:
        HTTPException: nobody who is logged in.
    """
    account: Account | None = getattr(request.state, "account", None)
    if account is None:
        raise HTTPException(401, "Log in first.")
    return account


def may(request: Request, permission: Permission) -> bool:
    """Whether who asks may do that."""
    account: Account | None = getattr(request.state, "account", None)
    return account is not None and account.may(permission)


def require(request: Request, permission: Permission) -> Account:
    """The account that asks, which may do that.

    Raises:
        NotPermitted: it may not.
    """
    account = account_of(request)
    if not account.may(permission):
        raise NotPermitted(f"Your account {account.name} may not do this; ask an administrator for the role it needs.")
    return account


class Page(CustomView):
    """A page of the console. `permission` is what seeing it asks for."""

    permission = Permission.SEE

    def is_accessible(self, request: Request) -> bool:
        """Whether who asks may see it."""
        return may(request, self.permission)

    def is_active(self, request: Request) -> bool:
        """Whether the menu shows it as the page one is on."""
        path = request.scope["path"].removeprefix(request.scope.get("root_path", "")).rstrip("/")
        return bool(path == self.path.rstrip("/"))

    def render(self, request: Request, template: str, status: int = 200, **context: Any) -> Response:
        """The page of that template."""
        if self._admin is None:
            raise RuntimeError("the page belongs to no console yet")
        shown = {
            "title": f"{self.menu_label} · SegInt",
            "may": functools.partial(may, request),
            "page": self,
            **context,
        }
        return self._admin._template_response(request, template, shown, status)  # its messages are shown by it


def as_json(
    endpoint: Callable[[PageT, Request], Awaitable[dict[str, Any]]],
) -> Callable[[PageT, Request], Awaitable[Response]]:
    """An endpoint that scripts ask: its answer as JSON, an error of SegInt's as `{"error": SENTENCE}`."""

    @functools.wraps(endpoint)
    async def answered(page: PageT, request: Request) -> Response:
        try:
            return JSONResponse(await endpoint(page, request))
        except SegIntError as error:
            return JSONResponse({"error": error.details}, status_of(error))

    return answered
