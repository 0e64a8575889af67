"""Cancelling on request: at once where nobody runs the job, by a flag that its worker heeds where somebody does."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.orm import Session

from services.core.db import audit, job_events, jobs
from services.core.db.tables import SegmentationJobRow as Row
from services.core.jobs import UNFINISHED, Job, JobEventKind, JobState


def request_cancel(session: Session, job_id: UUID, *, retention_hours: float, actor: str) -> Job | None:
    """Cancel the job, or have it cancelled; a job that is finished stays as it is.

    `actor` is who asks, in the audit's words.

    The row is locked first, so that of a cancel, a claim and a finish at the same moment each sees what the one
    before it left: claims pass over a locked row, and a finish that waited finds the flag.

    Returns:
        The job as it is afterwards; None when there is none.
    """
    row = session.get(Row, job_id, with_for_update=True)
    if row is None:
        return None
    asked = row.state in UNFINISHED and not row.cancel_requested
    reason = f"asked for by {actor}"
    if row.state == JobState.QUEUED:
        row.state = JobState.CANCELLED.value
        row.cancel_requested = True
        row.finished_at = func.now()
        row.expires_at = func.now() + timedelta(hours=retention_hours)
        job_events.record(session, job_id, JobEventKind.CANCELLED, attempt=row.attempt, details=reason)
    elif row.state == JobState.RUNNING and not row.cancel_requested:
        row.cancel_requested = True
        job_events.record(
            session, job_id, JobEventKind.CANCEL_REQUESTED, attempt=row.attempt, worker=row.worker, details=reason
        )
    session.flush()
    if asked:
        audit.record(
            session, actor=actor, action="job.cancelled", subject=f"job:{job_id}", details={"model": row.model_id}
        )
    session.refresh(row)
    return jobs.as_job(row)
