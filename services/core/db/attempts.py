"""Attempts that end without a verdict: by a crash, a time-out, or a worker that is heard of no more."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, select, text
from sqlalchemy.orm import Session

from services.core.db import job_events
from services.core.db.claims import held_by, seconds
from services.core.db.storable_text import storable
from services.core.db.tables import SegmentationJobRow as Row
from services.core.jobs import FINISHED, Claim, JobErrorCode, JobEventKind, JobState

MOST_BACK_OFF_DOUBLINGS = 8
"""2 s becomes at most some 8 minutes."""

EVENT_OF = {
    JobState.QUEUED: JobEventKind.LOST,
    JobState.FAILED: JobEventKind.FAILED,
    JobState.CANCELLED: JobEventKind.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What happens to a job whose attempt was lost."""

    attempt_limit: int
    retry_delay_seconds: float
    retention_hours: float


class LostAttempt(NamedTuple):
    """A job whose attempt ended without a verdict, and what became of it."""

    job_id: UUID
    token: UUID
    state: JobState
    model_id: str


class HeldUpLease(NamedTuple):
    """A job that cannot be taken back from its silent worker, because a backend of PostgreSQL keeps its row locked."""

    job_id: UUID
    backend_pid: int


def lose_attempt(session: Session, claim: Claim, *, reason: str, policy: RetryPolicy) -> JobState | None:
    """Give the job back after a crash or time-out: queued again, or failed at the attempt limit.

    Returns:
        The job's new state; None when the claim was lost before.
    """
    lost = _lose_attempts(session, held_by(claim), reason, policy, heard_at=func.now(), skip_locked=False)
    return lost[0].state if lost else None


def reap_expired_leases(session: Session, *, lease_seconds: float, policy: RetryPolicy) -> list[LostAttempt]:
    """Take back every running job whose worker stopped sending heartbeats.

    Not within one lease of the database's own start: no worker could send a heartbeat while it was away. Their back-off
    counts from the last heartbeat, so that a job whose worker was killed has mostly served it while its lease ran out.
    """
    started_long_ago = text("pg_postmaster_start_time() + make_interval(secs => :lease) < now()").bindparams(
        lease=lease_seconds
    )
    expired = and_(Row.state == JobState.RUNNING, Row.lease_expires_at < func.now(), started_long_ago)
    # One that is locked is being heard of, or settled, at this moment.
    heard_at = Row.lease_expires_at - seconds(lease_seconds)
    return _lose_attempts(session, expired, "its worker stopped answering", policy, heard_at=heard_at, skip_locked=True)


def held_up_leases(session: Session, *, lease_seconds: float) -> list[HeldUpLease]:
    """Leases that ended more than a lease ago, and were not taken back because their row is locked all that time.

    Every transaction of SegInt is over in seconds, and PostgreSQL ends the one of a client that falls silent. What is
    left is a backend that has itself stopped, which nothing but the administrator of PostgreSQL can end. An updated or
    locked row names its locker's transaction in `xmax`: PostgreSQL's documentation, System Columns.
    """
    rows = session.execute(
        text(
            "SELECT job.id, backend.pid FROM segmentation_job job"
            " JOIN pg_stat_activity backend ON backend.backend_xid = job.xmax"
            " WHERE job.state = :running AND job.lease_expires_at < now() - make_interval(secs => :lease)"
        ),
        {"running": JobState.RUNNING.value, "lease": lease_seconds},
    )
    return [HeldUpLease(row.id, row.pid) for row in rows]


def _lose_attempts(
    session: Session,
    condition: ColumnElement[bool],
    reason: str,
    policy: RetryPolicy,
    *,
    heard_at: ColumnElement[Any],
    skip_locked: bool,
) -> list[LostAttempt]:
    """End the running attempts that meet `condition`: cancelled if asked for, failed at the limit, queued otherwise."""
    rows = session.execute(select(Row).where(condition).with_for_update(skip_locked=skip_locked)).scalars().all()
    reason = storable(reason)
    lost = []
    for row in rows:
        token = row.claim_token
        if row.cancel_requested:
            state = JobState.CANCELLED
        elif row.attempt >= policy.attempt_limit:
            state = JobState.FAILED
            row.error_code = JobErrorCode.INTERNAL
            row.error_text = (
                f"The model «{row.model_id}» did not finish in {row.attempt} "
                f"{'attempt' if row.attempt == 1 else 'attempts'}; the last one ended because {reason}. "
                "Ask the administrator of the server to look at the model."
            )
        else:
            state = JobState.QUEUED
            doublings = min(row.attempt - 1, MOST_BACK_OFF_DOUBLINGS)
            row.run_after = heard_at + seconds(policy.retry_delay_seconds * 2**doublings)
        row.state = state.value
        row.claim_token = None
        row.lease_expires_at = None
        if state in FINISHED:
            row.finished_at = func.now()
            row.expires_at = func.now() + timedelta(hours=policy.retention_hours)
        job_events.record(session, row.id, EVENT_OF[state], attempt=row.attempt, worker=row.worker, details=reason)
        if token is not None:
            lost.append(LostAttempt(row.id, token, state, row.model_id))
    session.flush()
    return lost
