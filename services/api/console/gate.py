"""What every request to the console passes first: who asks, and whether this change was made on the console's own page.

It stands before everything of starlette-admin's, so that no endpoint of the library can be forgotten.
"""

import logging
from html import escape
from http.cookies import CookieError
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.addresses import peer_address
from services.api.console import cookies
from services.api.console.headers import new_nonce, security_headers
from services.api.console.secrets import BrowserSecrets
from services.api.console.sessions import Sessions
from services.core.errors import DatabaseUnavailable
from services.core.networks import Networks

logger = logging.getLogger(__name__)

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
TOKEN_HEADER = "X-CSRFToken"  # noqa: S105 # a header's name
TOKEN_FIELD = "csrftoken"  # noqa: S105 # a form field's name
MOST_FORM_BYTES = 4 * 1024**2
"""Forms are read whole to find their token. Model files come with the token in a header, and are streamed."""
STATIC_SECONDS = 3600
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


class Gate:
    """ASGI middleware. What it finds lies in `request.state`: account, console_session, csrf_token, csp_nonce."""

    def __init__(self, app: ASGIApp, *, sessions: Sessions, secrets: BrowserSecrets, proxies: Networks) -> None:
        self._app = app
        self._proxies = proxies
        self._sessions = sessions
        self._secrets = secrets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("the console speaks HTTP only")
        if _came_by_https(Request(scope), self._proxies):
            scope["scheme"] = "https"
        request = Request(scope, receive)
        nonce = new_nonce()
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        static = path.startswith("/static/")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in security_headers(nonce).items():
                    headers.setdefault(name, value)  # the viewer has stricter ones of its own
                if static and message["status"] == 200:
                    headers["Cache-Control"] = f"private, max-age={STATIC_SECONDS}"
            await send(message)

        state: dict[str, Any] = scope.setdefault("state", {})
        if static:
            state |= {"console_session": None, "account": None}
            await self._app(scope, receive, send_with_headers)
            return
        try:
            state["console_session"], state["account"] = await self._sessions.of(request)
        except DatabaseUnavailable as error:
            await _sentence(503, error.details)(scope, receive, send_with_headers)
            return
        except CookieError:
            state["console_session"], state["account"] = None, None
        state["csp_nonce"] = nonce
        state["before_login"] = self._secrets.read(request.cookies.get(cookies.BEFORE_LOGIN))
        new_visit = None
        if state["console_session"] is None and state["before_login"] is None:
            new_visit = state["before_login"] = self._secrets.new_session()
        named = state["console_session"] or state["before_login"]
        state["csrf_token"] = self._secrets.csrf_token(named)
        if request.method not in SAFE_METHODS and (state["console_session"] is not None or path == "/login"):
            refusal, receive = await self._refusal(request, named)
            if refusal is not None:
                logger.warning("console refused a change", extra={"path": path, "why": refusal})
                await _sentence(403, refusal)(scope, receive, send_with_headers)
                return

        async def send_with_cookies(message: Message) -> None:
            if message["type"] == "http.response.start":
                carrier = Response()
                if new_visit is not None and path == "/login":
                    cookies.put(carrier, request, cookies.BEFORE_LOGIN, self._secrets.signed(new_visit))
                headers = MutableHeaders(scope=message)
                for name, value in carrier.headers.items():
                    if name == "set-cookie":
                        headers.append(name, value)
            await send_with_headers(message)

        await self._app(scope, receive, send_with_cookies)

    async def _refusal(self, request: Request, session: str) -> tuple[str | None, Receive]:
        """Why this change is not made, and where its body is read from now on."""
        receive = request.receive
        if not _from_own_page(request):
            return (
                "This change was asked for by another site; it was not made. Make it on the console's own page.",
                receive,
            )
        token = request.headers.get(TOKEN_HEADER)
        if token is None and request.headers.get("content-type", "").startswith(_FORMS):
            body = await _small_body(request)
            if body is None:
                return f"The form is larger than {MOST_FORM_BYTES} bytes; send less.", receive
            receive = _replay(body)
            form = await Request(request.scope, _replay(body)).form()
            value = form.get(TOKEN_FIELD)
            token = value if isinstance(value, str) else None
            await form.close()
        if token is None or not self._secrets.is_csrf_token(session, token):
            return (
                "This page is of an earlier session, or its form lacks the session's token; the change was not made. "
                "Load the page again and repeat it."
            ), receive
        return None, receive


def _came_by_https(request: Request, proxies: Networks) -> bool:
    """Whether a proxy that the settings name says so."""
    return request.headers.get("x-forwarded-proto") == "https" and peer_address(request) in proxies


def _from_own_page(request: Request) -> bool:
    """By what the browser says of where the request comes from; programs that say nothing still need the token."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    return origin is None or origin.partition("://")[2] == request.headers.get("host", "")


async def _small_body(request: Request) -> bytes | None:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_FORM_BYTES:
            return None
    return bytes(body)


def _replay(body: bytes) -> Receive:
    given = False

    async def receive() -> Message:
        nonlocal given
        if given:
            return {"type": "http.disconnect"}
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _sentence(status: int, sentence: str) -> Response:
    if status == 503:
        return PlainTextResponse(sentence, status, {"Retry-After": "5"})
    return HTMLResponse(f"<!doctype html><title>SegInt console</title><p>{escape(sentence)}</p>", status)
