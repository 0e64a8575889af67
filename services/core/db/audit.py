"""The audit in PostgreSQL: appended to in the transaction of what it tells, read, and verified."""

from collections.abc import Iterator

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from services.core.audit import (
    FIRST_PREVIOUS_HASH,
    AuditEntry,
    AuditFault,
    AuditVerdict,
    Details,
    fault_of,
    hash_of,
)
from services.core.db import locks
from services.core.db.storable_text import storable
from services.core.db.tables import AuditEntryRow as Row

BATCH = 1000
"""Entries that are in memory at one time while all are looked through."""


def record(session: Session, *, actor: str, action: str, subject: str, details: Details | None = None) -> None:
    """Append an entry that stands or falls with the caller's transaction.

    Entries follow each other, so whoever records waits for the transaction that recorded before: call it last, after
    every row lock was taken, and never put a patient's data into it.
    """
    locks.lock(session, locks.Lock.AUDIT)
    last = session.execute(select(Row.id, Row.hash).order_by(Row.id.desc()).limit(1)).one_or_none()
    entry_id, previous_hash = (1, FIRST_PREVIOUS_HASH) if last is None else (last.id + 1, last.hash)
    at = session.execute(select(func.clock_timestamp())).scalar_one()
    content = {
        "actor": storable(actor),
        "action": action,
        "subject": storable(subject),
        "details": {
            key: storable(value) if isinstance(value, str) else value for key, value in (details or {}).items()
        },
    }
    entry_hash = hash_of(previous_hash, entry_id=entry_id, at=at, **content)  # type: ignore[arg-type] # its own keywords
    session.execute(insert(Row).values(id=entry_id, at=at, previous_hash=previous_hash, hash=entry_hash, **content))


def newest(session: Session, most: int, *, before: int | None = None) -> list[AuditEntry]:
    """The last entries, newest first; `before` gives the page that precedes that entry."""
    statement = select(Row).order_by(Row.id.desc()).limit(most)
    if before is not None:
        statement = statement.where(Row.id < before)
    return [_entry(row) for row in session.scalars(statement)]


def verify(session: Session, expected_hash: str | None = None) -> AuditVerdict:
    """Look through the whole audit up to the first entry that does not fit.

    Args:
        expected_hash: a head hash that was kept. Where no entry has it any more, entries were cut off at the end, or
            everything was written anew.
    """
    previous_hash, count = FIRST_PREVIOUS_HASH, 0
    fault: AuditFault | None = None
    found = expected_hash is None
    for entry in _oldest_first(session):
        fault = fault_of(entry, count + 1, previous_hash)
        if fault is not None:
            break
        previous_hash, count = entry.hash, count + 1
        found = found or entry.hash == expected_hash
    return AuditVerdict(count, previous_hash, fault, found)


def _oldest_first(session: Session) -> Iterator[AuditEntry]:
    # By number and not as one stream: each page is a statement of its own, far below the statement time-out.
    last = None
    while True:
        statement = select(Row).order_by(Row.id).limit(BATCH)
        rows = session.scalars(statement if last is None else statement.where(Row.id > last)).all()
        for row in rows:
            last = row.id
            yield _entry(row)
        if len(rows) < BATCH:
            return
        session.expunge_all()


def _entry(row: Row) -> AuditEntry:
    return AuditEntry(
        id=row.id,
        at=row.at,
        actor=row.actor,
        action=row.action,
        subject=row.subject,
        details=row.details,
        previous_hash=row.previous_hash,
        hash=row.hash,
    )
