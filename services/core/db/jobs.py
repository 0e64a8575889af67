"""Segmentation jobs as the API sees them: accepted, found, counted."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.core.db import job_events
from services.core.db.tables import SegmentationJobRow as Row
from services.core.jobs import Job, JobErrorCode, JobEventKind, JobState, NewJob, Priority


def accept(session: Session, job: NewJob) -> Job:
    """Insert `job` as queued."""
    row = Row(
        id=job.id,
        model_id=job.model_id,
        priority=int(job.priority),
        input_file=job.input_file,
        input_bytes=job.input_bytes,
        input_sha256=job.input_sha256 or None,
        voxel_count=job.voxel_count,
        client_version=job.client_version,
        remarks=job.remarks,
        submitted_by=job.submitted_by,
        token_id=job.token_id,
    )
    session.add(row)
    session.flush()
    job_events.record(session, job.id, JobEventKind.ACCEPTED, details=job.remarks)
    session.refresh(row)
    return as_job(row)


def find(session: Session, job_id: UUID) -> Job | None:
    """The job of that identifier."""
    row = session.get(Row, job_id)
    return None if row is None else as_job(row)


def models_of(session: Session, job_ids: Collection[UUID]) -> list[str]:
    """The model of each of these jobs, in no order."""
    return list(session.scalars(select(Row.model_id).where(Row.id.in_(job_ids))))


def count_by_state(session: Session) -> dict[JobState, int]:
    """Jobs in each state; states without any are 0."""
    counts = dict.fromkeys(JobState, 0)
    for state, count in session.execute(select(Row.state, func.count()).group_by(Row.state)):
        counts[JobState(state)] = count
    return counts


def count_queued(session: Session) -> int:
    """Jobs that wait, those that back off included."""
    return session.scalar(select(func.count()).where(Row.state == JobState.QUEUED)) or 0


def count_ready(session: Session) -> int:
    """Jobs that a worker could claim now."""
    return session.scalar(select(func.count()).where(Row.state == JobState.QUEUED, Row.run_after <= func.now())) or 0


def oldest_queued_seconds(session: Session) -> float:
    """Age of the job that waits longest; 0 when none waits."""
    age = session.scalar(
        select(func.extract("epoch", func.now() - func.min(Row.created_at))).where(Row.state == JobState.QUEUED)
    )
    return float(age or 0)


def as_job(row: Row) -> Job:
    """The value of a row."""
    return Job(
        id=row.id,
        model_id=row.model_id,
        state=JobState(row.state),
        priority=Priority(row.priority),
        progress_percent=row.progress_percent,
        error_code=JobErrorCode(row.error_code),
        error_text=row.error_text,
        attempt=row.attempt,
        cancel_requested=row.cancel_requested,
        input_file=row.input_file,
        result_file=row.result_file,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        expires_at=row.expires_at,
        stage_seconds=row.stage_seconds,
        claimed_at=row.claimed_at,
        worker=row.worker,
        remarks=row.remarks,
        input_bytes=row.input_bytes,
        input_sha256=row.input_sha256,
        result_bytes=row.result_bytes,
        result_sha256=row.result_sha256,
        submitted_by=row.submitted_by,
        token_id=row.token_id,
    )
