"""Advisory locks: agreements between transactions, without a table."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session


def try_lock(session: Session, key: int) -> bool:
    """Take the lock `key` until this transaction ends, if nobody holds it."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(key))))


def lock_name(session: Session, name: str) -> None:
    """Take the lock of `name` until this transaction ends, after whoever holds it."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext(name))))
