"""How many workers each pool has, and how much work waits for it. It serves people: no claim asks for it."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, false, func, not_, or_, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import InstrumentedAttribute, Session

from services.core.db.pool_reach import within_reach
from services.core.db.tables import ModelVersionRow, SegmentationJobRow
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


def out_of_reach(session: Session) -> dict[str, int]:
    """By model, queued jobs that do not back off and that no pool could claim of which a worker is there now.

    A pool whose first worker never came is not remembered; the work that it was meant for is seen here.
    """
    model_id = SegmentationJobRow.model_id
    counts = select(model_id, func.count()).where(_ready(), beyond_reach(session, model_id)).group_by(model_id)
    return dict(session.execute(counts).all())


def beyond_reach(session: Session, model_id: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """Whether no worker that is there now runs the model that the column `model_id` names."""
    return not_(or_(false(), *(within_reach(model_id, pool) for pool in _living_pools(session))))


def obstacle_to(session: Session, model_id: str) -> str:
    """Why no worker that is there runs the model, and what to do; empty where one does."""
    pools = _living_pools(session)
    if not pools:
        return "No worker is running; start one."
    for pool in pools:
        runs = select(within_reach(ModelVersionRow.model_id, pool)).where(ModelVersionRow.model_id == model_id)
        if session.scalar(runs):
            return ""
    names = ", ".join(pool.name for pool in pools)
    return f"No pool of workers that is running runs this model ({names}); start one that does."


def _waiting(session: Session, pool: Pool) -> int:
    statement = select(func.count()).where(_ready(), within_reach(SegmentationJobRow.model_id, pool))
    return session.scalar(statement) or 0


def _ready() -> ColumnElement[bool]:
    return and_(SegmentationJobRow.state == JobState.QUEUED, SegmentationJobRow.run_after <= func.now())


def _living_pools(session: Session) -> list[Pool]:
    newest = select(Row.pool, Row.reach).ext(distinct_on(Row.pool)).where(is_there())
    return [_pool(*row) for row in session.execute(newest.order_by(Row.pool, Row.seen_at.desc()))]


def _pool(name: str, reach: dict[str, object]) -> Pool:
    def names(key: str) -> tuple[str, ...]:
        value = reach.get(key)
        return tuple(map(str, value)) if isinstance(value, list) else ()

    device = PoolDevice(str(reach.get("device", PoolDevice.AUTO)))
    return Pool(name, names("models"), names("except_models"), names("runtimes"), device)
