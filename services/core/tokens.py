"""API tokens: what a program presents instead of a password, what it may do with it, and whose jobs it sees."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.core.choices import checked_choices
from services.core.errors import InvalidToken

PREFIX = "segint_"
"""Secret scanners find a token by it, and so does whoever reads a log that should not hold one."""
SECRET_BYTES = 32

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", re.ASCII)


class Scope(StrEnum):
    """What a token is for."""

    SEGMENT = "segment"
    """Submit, poll, fetch and cancel segmentations, and read the catalogue."""
    READ = "read"
    """Read the catalogue, statuses and results."""
    FEEDBACK = "feedback"
    """Send feedback and telemetry."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is kept: without its secret, which nobody has but its owner."""

    id: int
    name: str
    """Unique among those that are not revoked."""
    scopes: frozenset[Scope]
    all_jobs: bool
    """Whether it sees the jobs of others."""
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    """To the minute."""
    revoked_at: datetime | None

    @property
    def actor(self) -> str:
        """How the audit and jobs name it."""
        return f"token:{self.name}"


def new_secret() -> str:
    """A token of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def digest_of(secret: bytes) -> str:
    """What is kept of a token. It has 256 random bits, so one SHA-256 is enough: there is nothing to guess."""
    return hashlib.sha256(secret).hexdigest()


def token_name(text: str) -> str:
    """`text` as the name of a token.

    Raises:
        InvalidToken: it cannot be one.
    """
    name = text.strip()
    if not _NAME.fullmatch(name):
        raise InvalidToken(
            "A token's name has 1 to 64 of the letters A to Z, digits, and . _ @ -, and begins with a letter or digit; "
            "choose another."
        )
    return name


def checked_scopes(scopes: Sequence[str]) -> frozenset[Scope]:
    """`scopes` as values.

    Raises:
        InvalidToken: none is given, or one does not exist.
    """
    return checked_choices(Scope, scopes, owner="A token", noun="scope", error=InvalidToken)
