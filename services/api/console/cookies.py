"""The console's cookies: their names, and what they allow."""

from ipaddress import ip_address

from starlette.requests import Request
from starlette.responses import Response

from services.api.addresses import client_address, is_vouched_for
from services.core.networks import UNIX, Networks

SESSION = "segint_console"
BEFORE_LOGIN = "segint_login"
"""Names a visit to the login page, so that its form has a token too. It is no session and opens nothing."""
CSRF = "starlette_admin_csrftoken"
"""Where starlette-admin's scripts look for the token that they send back. Nothing is decided by this cookie."""

PATH = "/admin"


def may_carry_secrets(request: Request, proxies: Networks) -> bool:
    """Whether passwords and sessions can be sent over this connection: HTTPS, or from this machine to itself."""
    if request.url.scheme == "https":
        return True
    address = client_address(request, proxies)
    if address == UNIX:
        return True
    try:
        return ip_address(address).is_loopback and is_vouched_for(request, proxies)
    except ValueError:
        return False


def put(
    response: Response, request: Request, name: str, value: str, *, readable: bool = False, path: str = PATH
) -> None:
    """Set a cookie for the console, until the browser is closed; the server ends sessions earlier.

    Args:
        readable: whether the page's own scripts may read it.
        path: below which it is sent.
    """
    response.set_cookie(
        name, value, path=path, httponly=not readable, samesite="lax", secure=request.url.scheme == "https"
    )


def forget(response: Response, *names: str) -> None:
    """Have the browser drop these cookies."""
    for name in names:
        response.delete_cookie(name, path=PATH)
