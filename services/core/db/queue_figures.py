"""What Prometheus is told of the queue: facts of the whole deployment, the same whichever process asks."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.core.db.pool_figures import PoolFigures, out_of_reach, pool_figures
from services.core.db.tables import ModelVersionRow
from services.core.db.tables import SegmentationJobRow as Row
from services.core.jobs import JobState

KEPT_STATES = tuple(state for state in JobState if state is not JobState.EXPIRED)
"""What has expired is history that only ever grows; the others are what an index of their own finds."""


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """One look."""

    models: tuple[str, ...]
    """Identifiers of the catalogue, oldest first: the same order for every process that makes labels of them."""
    jobs: dict[tuple[str, JobState], int]
    """By model and state, of `KEPT_STATES`; what is 0 is left out."""
    ready: int
    """Queued jobs that do not back off: a worker could claim them now."""
    oldest_queued_seconds: dict[str, float]
    """By model, since the job was accepted; models without a queued job are left out."""
    pools: list[PoolFigures]
    out_of_reach: dict[str, int]
    """By model, ready jobs that no worker that is there could claim; models without one are left out."""


def queue_figures(session: Session) -> QueueFigures:
    """Everything, by statements that only read."""
    models = session.scalars(select(ModelVersionRow.model_id).order_by(ModelVersionRow.id)).all()
    ready = func.count().filter(Row.run_after <= func.now())
    age = func.extract("epoch", func.now() - func.min(Row.created_at))
    rows = session.execute(
        select(Row.model_id, Row.state, func.count(), ready, age)
        .where(Row.state != JobState.EXPIRED)
        .group_by(Row.model_id, Row.state)
    ).all()
    queued = [row for row in rows if row.state == JobState.QUEUED]
    return QueueFigures(
        models=tuple(models),
        jobs={(model_id, JobState(state)): count for model_id, state, count, _, _ in rows},
        ready=sum(ready for _, _, _, ready, _ in queued),
        oldest_queued_seconds={model_id: float(age) for model_id, _, _, _, age in queued},
        pools=pool_figures(session),
        out_of_reach=out_of_reach(session),
    )
