"""Which volume this database belongs to: jobs name files, and another volume's silence about them proves nothing."""

from collections.abc import Callable

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from services.core.db.locks import lock_name
from services.core.db.tables import VolumeIdentityRow as Row


def known_identity(session: Session) -> str | None:
    """The identity of the volume; None before the first one was used."""
    return session.scalar(select(Row.identity))


def settle_identity(session: Session, mark: Callable[[], str]) -> str:
    """The identity of the volume, which `mark` gives or finds where the database knows none yet.

    Under a lock, because two processes that start on an empty volume would mark it twice.
    """
    lock_name(session, "volume identity")
    known = known_identity(session)
    if known is None:
        known = mark()
        session.execute(insert(Row).values(id=1, identity=known))
    return known
