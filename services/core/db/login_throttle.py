"""Login attempts that failed: after some, an account and an address must wait, longer each time.

Kept in PostgreSQL, so that a restart forgets nothing and several API processes count together.
"""

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.core.db.locks import lock_name
from services.core.db.tables import LoginFailureRow as Row

ACCOUNT_FAILURES = 5
ADDRESS_FAILURES = 20
"""More than for an account: a group may share one address."""
FIRST_WAIT_SECONDS = 30
LONGEST_WAIT_SECONDS = 900
"""So that nobody is kept out of an account for long by somebody else's attempts."""
MEMORY_MINUTES = 15
"""Failures are forgotten so long after the last one, or after the wait for it."""


@dataclass(frozen=True, slots=True)
class _Counter:
    """What is counted, and how many failures are let pass."""

    key: str
    failures: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Why an attempt is not let in."""

    seconds: int
    first: bool
    """Whether nobody else was told of this very wait before: that much of it is audited, and no more, or whoever keeps
    on trying would fill the audit."""


def enter(session: Session, name: str, address: str) -> Wait | None:
    """Let one attempt in, with None: others by the same account or address wait until this transaction ends.

    Commit where the wait that it gives is the `first`, or the next one is too.
    """
    now = _now(session)
    # Of the account first: whoever has an address's lock waits for nobody, so no two wait for each other.
    for counter in _counters(name, address):
        lock_name(session, counter.key)
        blocked_until = session.scalar(select(Row.blocked_until).where(Row.key == counter.key))
        if blocked_until is not None and blocked_until > now:
            seconds = max(1, round((blocked_until - now).total_seconds()))
            return Wait(seconds, _is_first(session, counter, blocked_until, now))
    return None


def failed(session: Session, name: str, address: str) -> None:
    """Count a failure, after `enter` in the same transaction."""
    now = _now(session)
    _forget(session, now)
    for counter in _counters(name, address):
        before = session.scalar(select(Row.failures).where(Row.key == counter.key, Row.forget_at > now)) or 0
        failures = before + 1
        blocked_until = None
        if failures >= counter.failures:
            wait = min(FIRST_WAIT_SECONDS * 2 ** min(failures - counter.failures, 10), LONGEST_WAIT_SECONDS)
            blocked_until = now + timedelta(seconds=wait)
        values = {
            "failures": failures,
            "blocked_until": blocked_until,
            "forget_at": (blocked_until or now) + timedelta(minutes=MEMORY_MINUTES),
        }
        statement = insert(Row).values(key=counter.key, **values)
        session.execute(statement.on_conflict_do_update(index_elements=[Row.key], set_=values))


def succeeded(session: Session, name: str) -> None:
    """Forget the account's failures. Those from the address stay: one good password does not excuse guessing others."""
    session.execute(delete(Row).where(Row.key == _account_key(name)))


def _is_first(session: Session, counter: _Counter, blocked_until: datetime, now: datetime) -> bool:
    """Whether this wait of the counter was not told of yet; from now on it was."""
    told = insert(Row).values(key=f"told:{counter.key}", failures=0, forget_at=blocked_until)
    told = told.on_conflict_do_update(
        index_elements=[Row.key], set_={"forget_at": blocked_until}, where=Row.forget_at <= now
    )
    return session.scalar(told.returning(Row.key)) is not None


def _forget(session: Session, now: datetime) -> None:
    old = select(Row.key).where(Row.forget_at <= now).with_for_update(skip_locked=True)
    session.execute(delete(Row).where(Row.key.in_(old)))


def _counters(name: str, address: str) -> tuple[_Counter, _Counter]:
    return _Counter(_account_key(name), ACCOUNT_FAILURES), _Counter(_address_key(address), ADDRESS_FAILURES)


def _account_key(name: str) -> str:
    """Hashed: what is typed into the field for the name is sometimes the password."""
    return "account:" + hashlib.sha256(name.encode(errors="replace")).hexdigest()


def _address_key(address: str) -> str:
    """Of IPv6 the network of 64 bits, of which one machine may have every address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "address:unknown"
    if parsed.version == 6:
        return f"address:{ipaddress.ip_network((parsed, 64), strict=False)}"
    return f"address:{parsed}"


def _now(session: Session) -> datetime:
    now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return now
