"""Advisory locks: agreements between transactions, without a table."""

from enum import IntEnum, unique

from sqlalchemy import func, select
from sqlalchemy.orm import Session


@unique
class Lock(IntEnum):
    """The locks that are no name's. One number for two would make either wait for the other."""

    MIGRATION = 0x5E61_0001
    JANITOR = 0x5E61_0002
    TIDYING = 0x5E61_0003
    ROLES = 0x5E61_0004
    """Two that grant on one table at once disturb each other."""
    AUDIT = 0x5E61_0005


def lock(session: Session, which: Lock) -> None:
    """Take it until this transaction ends, after whoever holds it."""
    session.execute(select(func.pg_advisory_xact_lock(int(which))))


def try_lock(session: Session, which: Lock) -> bool:
    """Take it until this transaction ends, if nobody holds it."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(int(which)))))


def lock_name(session: Session, name: str) -> None:
    """Take the lock of `name` until this transaction ends, after whoever holds it."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext(name))))
