"""How many workers each pool has, and how much work waits for it. It serves people: no claim asks for it."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from services.core.db.pool_reach import within_reach
from services.core.db.tables import SegmentationJobRow
from services.core.db.tables import WorkerRow as Row
from services.core.db.workers import is_there
from services.core.jobs import JobState
from services.core.pools import Pool, PoolDevice

MOST_POOLS = 50
"""Shown; every pool is a label."""


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """One pool now."""

    name: str
    workers: int
    """That are there."""
    waiting: int
    """Queued jobs that it could claim now; some of them another pool might claim too."""


def pool_figures(session: Session) -> list[PoolFigures]:
    """Every pool of which a worker is remembered, by name; what it claims is what its newest worker says."""
    there = func.count().filter(is_there())
    counts = select(Row.pool, there).group_by(Row.pool).order_by(Row.pool).limit(MOST_POOLS)
    newest = select(Row.pool, Row.reach).ext(distinct_on(Row.pool)).order_by(Row.pool, Row.seen_at.desc())
    reaches = {pool: _pool(pool, reach) for pool, reach in session.execute(newest)}
    return [
        PoolFigures(name, workers, _waiting(session, reaches[name])) for name, workers in session.execute(counts).all()
    ]


def _waiting(session: Session, pool: Pool) -> int:
    queued = SegmentationJobRow
    statement = select(func.count()).where(
        queued.state == JobState.QUEUED, queued.run_after <= func.now(), within_reach(queued.model_id, pool)
    )
    return session.scalar(statement) or 0


def _pool(name: str, reach: dict[str, object]) -> Pool:
    def names(key: str) -> tuple[str, ...]:
        value = reach.get(key)
        return tuple(map(str, value)) if isinstance(value, list) else ()

    device = PoolDevice(str(reach.get("device", PoolDevice.AUTO)))
    return Pool(name, names("models"), names("except_models"), names("runtimes"), device)
