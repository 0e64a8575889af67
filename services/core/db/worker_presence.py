"""Which workers are there, by pool, and how much work waits for each. It serves operators: no claim asks for it."""

from dataclasses import asdict, dataclass
from datetime import timedelta

from sqlalchemy import and_, delete, func, select, text
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.orm import Session

from services.core.db.pool_reach import within_reach
from services.core.db.tables import SegmentationJobRow, WorkerPresenceRow
from services.core.db.tables import WorkerPresenceRow as Row
from services.core.jobs import JobState
from services.core.pools import Pool, PoolDevice

TELL_SECONDS = 10.0
"""How often a worker says that it is there."""
ALIVE_SECONDS = 45
"""How long that is believed: four times, so that a slow database makes nobody look dead."""
REMEMBERED_DAYS = 7
"""How long a pool without workers is shown with none. One that was taken away for good is forgotten then."""
MOST_POOLS = 50
"""Shown; every pool is a label."""


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """One pool now."""

    name: str
    workers: int
    """That were heard of lately."""
    waiting: int
    """Queued jobs that it could claim now; some of them another pool might claim too."""


def tell(session: Session, worker: str, pool: Pool) -> None:
    """The worker is there."""
    reach = asdict(pool)
    name = reach.pop("name")
    values = {"pool": name, "reach": reach, "heard_at": func.now(), "ended_at": None}
    statement = insert(Row).values(worker=worker, **values)
    session.execute(statement.on_conflict_do_update(index_elements=[Row.worker], set_=values))
    session.execute(delete(Row).where(Row.heard_at < func.now() - timedelta(days=REMEMBERED_DAYS)))


def tell_end(session: Session, worker: str) -> None:
    """The worker ends. Its pool is remembered, so that it is seen to have none."""
    row = session.get(WorkerPresenceRow, worker)
    if row is not None:
        row.ended_at = func.now()


def pool_figures(session: Session) -> list[PoolFigures]:
    """Every pool of which a worker was heard lately, by name; what it claims is what its newest worker says."""
    alive = and_(Row.ended_at.is_(None), Row.heard_at > func.now() - text(f"interval '{ALIVE_SECONDS} seconds'"))
    counts = select(Row.pool, func.count().filter(alive)).group_by(Row.pool).order_by(Row.pool).limit(MOST_POOLS)
    newest = select(Row.pool, Row.reach).ext(distinct_on(Row.pool)).order_by(Row.pool, Row.heard_at.desc())
    reaches = {pool: _pool(pool, reach) for pool, reach in session.execute(newest)}
    return [
        PoolFigures(name, workers, _waiting(session, reaches[name])) for name, workers in session.execute(counts).all()
    ]


def _waiting(session: Session, pool: Pool) -> int:
    queued = SegmentationJobRow
    return (
        session.scalar(
            select(func.count()).where(
                queued.state == JobState.QUEUED, queued.run_after <= func.now(), within_reach(queued.model_id, pool)
            )
        )
        or 0
    )


def _pool(name: str, reach: dict[str, object]) -> Pool:
    def names(key: str) -> tuple[str, ...]:
        value = reach.get(key)
        return tuple(map(str, value)) if isinstance(value, list) else ()

    device = PoolDevice(str(reach.get("device", PoolDevice.AUTO)))
    return Pool(name, names("models"), names("except_models"), names("runtimes"), device)
