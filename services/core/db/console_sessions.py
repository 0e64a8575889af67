"""Sessions of the console. A session is worth something while its row, its account and both time limits say so."""

import hashlib
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from services.core.accounts import Account
from services.core.db import accounts
from services.core.db.tables import ConsoleSessionRow as Row

TOUCH_SECONDS = 15
"""A session's last use is noted no more often: each note is a write."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How long a session lasts without use, and how long in all."""

    idle_seconds: float
    total_seconds: float


def begin(session: Session, identifier: str, account: Account, limits: SessionLimits) -> None:
    """Begin a session of `account`; sessions that are over by time are forgotten."""
    now = func.clock_timestamp()
    session.execute(
        delete(Row).where(
            or_(
                Row.created_at < now - timedelta(seconds=limits.total_seconds),
                Row.last_used_at < now - timedelta(seconds=limits.idle_seconds),
            )
        )
    )
    session.add(Row(id_sha256=_digest(identifier), account_id=account.id, session_epoch=account.session_epoch))
    session.flush()


def find(session: Session, identifier: str, limits: SessionLimits, *, by_hand: bool = True) -> Account | None:
    """The account whose session it is, as the account is now; None where the session is over or never was.

    Args:
        by_hand: whether a person asks, which keeps the session from going idle.
    """
    now = func.clock_timestamp()
    digest = _digest(identifier)
    found = session.execute(
        select(Row.account_id, Row.session_epoch, now - Row.last_used_at).where(
            Row.id_sha256 == digest,
            Row.created_at > now - timedelta(seconds=limits.total_seconds),
            Row.last_used_at > now - timedelta(seconds=limits.idle_seconds),
        )
    ).first()
    if found is None:
        return None
    account_id, epoch, unused = found
    account = accounts.account_by_id(session, account_id)
    if account is None or not account.enabled or account.session_epoch != epoch:
        return None
    if by_hand and unused > timedelta(seconds=min(TOUCH_SECONDS, limits.idle_seconds / 4)):
        session.execute(update(Row).where(Row.id_sha256 == digest).values(last_used_at=now))
    return account


def end(session: Session, identifier: str) -> None:
    """End that session: what still names it opens nothing any more."""
    session.execute(delete(Row).where(Row.id_sha256 == _digest(identifier)))


def _digest(identifier: str) -> str:
    return hashlib.sha256(identifier.encode()).hexdigest()
