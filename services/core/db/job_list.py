"""Jobs side by side, for whoever keeps an eye on the queue: what runs, what waits, then what ended last."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from services.core.db.jobs import as_job, count_queued
from services.core.db.tables import SegmentationJobRow as Row
from services.core.db.waiting import estimate_seconds, typical_run_seconds
from services.core.jobs import Job, JobState

MOST_QUEUED = 200
"""Running jobs are all listed: there are no more than workers take."""
MOST_ENDED = 50


@dataclass(frozen=True, slots=True)
class ListedJob:
    """One line of the list."""

    job: Job
    age_seconds: float
    """Since it was accepted."""
    queue_position: int | None
    """1 is claimed next; None unless it is queued."""
    remaining_seconds: float | None
    """Estimate; None where there is no history, and once it has ended."""


@dataclass(frozen=True, slots=True)
class JobList:
    """The list, and how many there are in all of those that it holds in part."""

    jobs: list[ListedJob]
    running: int
    queued: int
    more_queued: int
    """Of them, those that are not listed: they are claimed after the others."""


def listed_jobs(session: Session) -> JobList:
    """Running jobs, then waiting ones in the order in which they are claimed, then those that ended last."""
    now: datetime = session.execute(select(func.now())).scalar_one()
    # In the order of `claims.claim`. One statement sees one moment, so that a job that is claimed meanwhile is neither
    # missing nor there twice.
    order = (Row.priority.desc(), Row.created_at)
    first = select(Row.id).where(Row.state == JobState.QUEUED.value).order_by(*order).limit(MOST_QUEUED)
    rows = session.scalars(
        select(Row).where(or_(Row.state == JobState.RUNNING.value, Row.id.in_(first))).order_by(*order)
    ).all()
    ended = session.scalars(
        select(Row).where(Row.finished_at.is_not(None)).order_by(Row.finished_at.desc()).limit(MOST_ENDED)
    ).all()
    running = [as_job(row) for row in rows if row.state == JobState.RUNNING]
    queued = [as_job(row) for row in rows if row.state == JobState.QUEUED]
    typical = typical_run_seconds(session, {job.model_id for job in [*running, *queued]})
    workers = len({job.worker for job in running})
    elapsed = {job.id: (now - job.claimed_at).total_seconds() if job.claimed_at else 0.0 for job in running}
    listed = [
        ListedJob(
            job,
            _age(job, now),
            None,
            estimate_seconds(typical, job.model_id, elapsed[job.id], {}, [], workers),
        )
        for job in running
    ]
    before: dict[str, int] = {}
    under_way = [(job.model_id, elapsed[job.id]) for job in running]
    for position, job in enumerate(queued, start=1):
        remaining = estimate_seconds(typical, job.model_id, 0.0, before, under_way, workers)
        listed.append(ListedJob(job, _age(job, now), position, remaining))
        before[job.model_id] = before.get(job.model_id, 0) + 1
    listed += [ListedJob(job, _age(job, now), None, None) for job in map(as_job, ended)]
    in_all = max(count_queued(session), len(queued)) if len(queued) == MOST_QUEUED else len(queued)
    return JobList(listed, running=len(running), queued=in_all, more_queued=in_all - len(queued))


def _age(job: Job, now: datetime) -> float:
    return max((now - job.created_at).total_seconds(), 0.0)
