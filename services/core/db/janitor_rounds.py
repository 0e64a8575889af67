"""When a janitor worked last, over all API processes: what tells an outage from a silent worker.

While nobody reached the database, no worker could send a heartbeat. Leases that ended meanwhile say nothing about
their workers, so for one lease after such a gap none is taken back.
"""

from sqlalchemy import case, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.core.db.claims import seconds
from services.core.db.tables import JanitorRoundRow as Row

GAP_PER_LEASE = 1 / 3
"""Longest pause between two rounds that is no gap, in leases. A lease is at least three heartbeats, so no lease ends in
a shorter one: the last heartbeat before it was at most a third of a lease old."""


def note_round(session: Session, *, lease_seconds: float) -> bool:
    """Note that a janitor works now.

    Returns:
        Whether leases may be taken back: no gap ended within the last lease.
    """
    gap = Row.last_at < func.now() - seconds(lease_seconds * GAP_PER_LEASE)
    statement = insert(Row).values(id=1, last_at=func.now(), reap_after=func.now())
    return bool(
        session.scalar(
            statement.on_conflict_do_update(
                index_elements=[Row.id],
                set_={
                    "last_at": func.now(),
                    "reap_after": case((gap, func.now() + seconds(lease_seconds)), else_=Row.reap_after),
                },
            ).returning(Row.reap_after <= func.now())
        )
    )
