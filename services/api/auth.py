"""Credentials, where the deployment asks for them: one of its tokens, as Bearer or as the password of HTTP Basic."""

import base64
import hashlib
import hmac
from collections.abc import Sequence

from starlette.requests import Request

from services.core.errors import NotAuthenticated

OPEN_PATHS = frozenset({"/ping", "/healthz", "/readyz", "/metrics"})
"""What probes and monitoring need; nothing there belongs to a patient or a model."""


class Authenticator:
    """Knows the deployment's tokens. Without any, everything is open."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._digests = [hashlib.sha256(token.encode()).digest() for token in tokens]

    def check(self, request: Request) -> None:
        """Let the request pass.

        Raises:
            NotAuthenticated: credentials are required, and these are none or wrong ones.
        """
        if not self._digests or request.scope["path"].rstrip("/") in OPEN_PATHS:
            return
        token = _presented_token(request.headers.get("authorization", ""))
        if token is None:
            raise NotAuthenticated(
                "This server asks for a token; send it as Authorization: Bearer, or as the password of HTTP Basic."
            )
        digest = hashlib.sha256(token).digest()
        # Every digest is compared, each in constant time, so that the answer's delay tells nothing.
        if not any([hmac.compare_digest(digest, known) for known in self._digests]):  # noqa: C419
            raise NotAuthenticated("The token is not one of this server's; ask its administrator for one.")


def _presented_token(header: str) -> bytes | None:
    """The token's bytes as they were sent: headers are read as Latin-1, one character for each byte."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("latin-1") or None
    if scheme.lower() == "basic":
        try:
            _, separator, password = base64.b64decode(value, validate=True).partition(b":")
        except ValueError:
            return None
        return password if separator else None
    return None
