"""What a browser is given to keep, signed: its session, and the token that each of its changes must carry."""

import base64
import hashlib
import hmac
import secrets

from itsdangerous import BadSignature, URLSafeSerializer

SESSION_BYTES = 32
"""256 random bits: nobody guesses a session."""


class BrowserSecrets:
    """Signs and checks with the deployment's session secret."""

    def __init__(self, secret: str) -> None:
        self._key = secret.encode()
        self._serializer = URLSafeSerializer(
            secret, salt="segint-console", signer_kwargs={"digest_method": hashlib.sha256}
        )

    @staticmethod
    def new_session() -> str:
        """A new session's identifier."""
        return secrets.token_urlsafe(SESSION_BYTES)

    def signed(self, session: str) -> str:
        """What the cookie holds."""
        return self._serializer.dumps(session)

    def read(self, cookie: str | None) -> str | None:
        """The session that a cookie names; None where there is none, or its signature is not this deployment's."""
        if not cookie:
            return None
        try:
            value = self._serializer.loads(cookie)
        except BadSignature:
            return None
        return value if isinstance(value, str) else None

    def csrf_token(self, session: str) -> str:
        """The one token that changes made in this session carry. Another session's is another one."""
        digest = hmac.new(self._key, b"csrf:" + session.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def is_csrf_token(self, session: str, token: str) -> bool:
        """Whether `token` is that session's; compared in constant time."""
        return hmac.compare_digest(self.csrf_token(session).encode(), token.encode())
