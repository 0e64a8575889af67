"""How long a job still takes: its place in the queue, and an estimate from what its model took before."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import ColumnElement, Text, and_, func, or_, select, true
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.orm import Session

from services.core.db import job_events, pool_figures, provenance
from services.core.db.tables import SegmentationJobRow as Row
from services.core.jobs import UNFINISHED, Job, JobState, JobStatus

HISTORY = 20
"""Runs that an estimate looks back on: enough for a median, few enough to follow a faster GPU."""


def status_of(session: Session, job: Job) -> JobStatus:
    """`job` with its time line, its place in the queue and the estimate of its remaining time."""
    position, remaining, obstacle = None, None, ""
    if job.state in UNFINISHED:
        now: datetime = session.scalar(select(func.now()))  # type: ignore[assignment] # it always has a value
        running = session.execute(
            select(Row.model_id, Row.claimed_at, Row.worker).where(Row.state == JobState.RUNNING, Row.id != job.id)
        ).all()
        before: dict[str, int] = {}
        if job.state is JobState.QUEUED:
            ahead = select(Row.model_id, func.count()).where(_before(job)).group_by(Row.model_id)
            before = dict(iter(session.execute(ahead)))
            position = sum(before.values()) + 1
            obstacle = pool_figures.obstacle_to(session, job.model_id)
        models = {job.model_id, *before, *(row.model_id for row in running)}
        typical = typical_run_seconds(session, models)
        started = [(row.model_id, (now - row.claimed_at).total_seconds() if row.claimed_at else 0.0) for row in running]
        elapsed = (now - job.claimed_at).total_seconds() if job.claimed_at and position is None else 0.0
        workers = len({row.worker for row in running})
        remaining = estimate_seconds(typical, job.model_id, elapsed, before, started if position else [], workers)
    ran_with = provenance.of_job(session, job.id)
    return JobStatus(job, job_events.of_job(session, job.id), position, remaining, obstacle, ran_with)


def typical_run_seconds(session: Session, model_ids: set[str]) -> dict[str, float]:
    """Median of each model's last successful runs; models without any are left out."""
    models = func.unnest(array(sorted(model_ids), type_=Text)).table_valued("model_id").render_derived()
    recent = (
        select(Row.run_seconds)
        .where(Row.model_id == models.c.model_id, Row.run_seconds.is_not(None))
        .order_by(Row.finished_at.desc())
        .limit(HISTORY)
        .lateral()
    )
    median = func.percentile_cont(0.5).within_group(recent.c.run_seconds)
    rows = session.execute(select(models.c.model_id, median).join(recent, true()).group_by(models.c.model_id))
    return {model_id: float(run_seconds) for model_id, run_seconds in rows}


def estimate_seconds(
    typical: Mapping[str, float],
    model_id: str,
    elapsed_seconds: float,
    before: Mapping[str, int],
    running: list[tuple[str, float]],
    workers: int,
) -> float | None:
    """Seconds until a job of `model_id` is done, or None when one of the models involved has no history.

    Workers are taken to be those that run jobs now: while jobs wait, no living worker is idle. What one of them runs
    beside another job is taken to come after it, because they share a device.

    Args:
        typical: seconds that one run of each model takes.
        elapsed_seconds: how long the job itself has run.
        before: how many queued jobs of each model come first.
        running: model and elapsed seconds of each job that runs and must end before this one begins.
        workers: how many workers run those.
    """
    if not {model_id, *before, *(name for name, _ in running)} <= typical.keys():
        return None
    work = sum(typical[name] * count for name, count in before.items())
    work += sum(max(typical[name] - elapsed, 0.0) for name, elapsed in running)
    return round(work / max(workers, 1) + max(typical[model_id] - elapsed_seconds, 0.0), 1)


def _before(job: Job) -> ColumnElement[bool]:
    """Queued jobs that are claimed before `job`, in the order of `claims.claim`."""
    return and_(
        Row.state == JobState.QUEUED,
        or_(
            Row.priority > int(job.priority),
            and_(Row.priority == int(job.priority), Row.created_at < job.created_at),
        ),
    )
