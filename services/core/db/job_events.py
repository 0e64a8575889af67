"""The time line of jobs: each transition is recorded in the transaction that makes it."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from services.core.db.tables import JobEventRow as Row
from services.core.jobs import JobEvent, JobEventKind


def record(
    session: Session,
    job_id: UUID,
    kind: JobEventKind,
    *,
    attempt: int = 0,
    worker: str | None = None,
    details: str = "",
) -> None:
    """Append one event to the job's time line, now."""
    session.execute(insert(Row).values(job_id=job_id, kind=kind.value, attempt=attempt, worker=worker, details=details))


def record_all(session: Session, job_ids: Iterable[UUID], kind: JobEventKind, details: str = "") -> None:
    """Append the same event to several time lines."""
    events = [{"job_id": job_id, "kind": kind.value, "details": details} for job_id in job_ids]
    if events:
        session.execute(insert(Row), events)


def of_job(session: Session, job_id: UUID) -> tuple[JobEvent, ...]:
    """The job's time line, oldest first."""
    rows = session.scalars(select(Row).where(Row.job_id == job_id).order_by(Row.id))
    return tuple(JobEvent(row.at, JobEventKind(row.kind), row.attempt, row.worker, row.details) for row in rows)
