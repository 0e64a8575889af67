"""Credentials: a token as Bearer or as the password of HTTP Basic, or an address in a trusted network."""

import base64
import logging
import time
from datetime import UTC, datetime, timedelta

from starlette.requests import Request

from services.api.addresses import client_address, is_vouched_for
from services.api.callers import Caller, caller_at, caller_with
from services.core.db import tokens as token_rows
from services.core.db.session import AsyncDatabase
from services.core.errors import DatabaseUnavailable, NotAuthenticated
from services.core.networks import networks
from services.core.settings import AuthPolicy, Settings
from services.core.tokens import Token, digest_of

logger = logging.getLogger(__name__)

REMEMBERED_SECONDS = 3.0
"""How long a token that was found good is not looked up again, and so how long a revoked one may still pass: clients
poll several times a second."""
MOST_REMEMBERED = 1000
"""Good tokens only, so more than a deployment has."""


USE_GRAIN = timedelta(seconds=token_rows.USE_GRAIN_SECONDS)


class Authenticator:
    """Lets requests in. One per process."""

    def __init__(self, settings: Settings, database: AsyncDatabase) -> None:
        self._database = database
        self._open = settings.auth is AuthPolicy.OPEN
        self._trusted = networks(settings.trusted_networks)
        self._proxies = networks(settings.trusted_proxies)
        self._remembered: dict[str, tuple[Token, float]] = {}

    async def caller(self, request: Request) -> Caller:
        """Who sent this request. Wrong credentials are refused even where none are needed.

        Raises:
            NotAuthenticated: credentials are required, or are wrong.
            DatabaseUnavailable: the token is not remembered and cannot be looked up.
        """
        header = request.headers.get("authorization")
        if header is not None:
            return caller_with(await self._token(_presented(header)))
        address = client_address(request, self._proxies)
        if self._open or (address in self._trusted and is_vouched_for(request, self._proxies)):
            return caller_at(address)
        raise NotAuthenticated(
            f"This server asks for a token of who comes from {address}; send one as Authorization: Bearer, or as the "
            "password of HTTP Basic. `segint token create` makes one."
        )

    async def _token(self, secret: bytes | None) -> Token:
        token = None if secret is None else await self._good_token(digest_of(secret))
        if token is None:
            raise NotAuthenticated(
                "The token is not one of this server's, or was revoked, or has expired; ask its administrator for one."
            )
        return token

    async def _good_token(self, digest: str) -> Token | None:
        now = time.monotonic()
        token, until = self._remembered.get(digest, (None, 0.0))
        if token is not None and now < until:
            return token
        self._remembered.pop(digest, None)
        token = await self._database.read(token_rows.presented_token, digest)
        if token is None:
            return None
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[digest] = (token, now + REMEMBERED_SECONDS)
        await self._note_use(token)
        return token

    async def _note_use(self, token: Token) -> None:
        if token.last_used_at is not None and datetime.now(UTC) - token.last_used_at < USE_GRAIN:
            return
        try:
            await self._database.run(token_rows.note_use, token.id)
        except DatabaseUnavailable as error:  # it may take no writes; what was asked may need none
            logger.warning("use of a token not noted", extra={"token": token.name, "reason": error.details})


def _presented(header: str) -> bytes | None:
    """The token's bytes as they were sent, or None for what cannot hold one. Headers are read as Latin-1."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("latin-1") or None
    if scheme.lower() == "basic":
        try:
            _, separator, password = base64.b64decode(value, validate=True).partition(b":")
        except ValueError:
            return None
        return password if separator and password else None
    return None
