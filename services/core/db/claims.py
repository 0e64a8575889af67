"""Claims: the queue itself, and the compare-and-set that every verdict of a worker is.

Every time is the database's own clock, never a worker's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, CursorResult, and_, func, literal, select, text, update
from sqlalchemy.orm import Session

from services.core.db.tables import SegmentationJobRow as Row
from services.core.jobs import COMPLETE_PERCENT, FINISHED, Claim, JobErrorCode, JobState, Priority

MOST_BACK_OFF_DOUBLINGS = 8
"""2 s becomes at most some 8 minutes."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What happens to a job whose attempt was lost."""

    attempt_limit: int
    retry_delay_seconds: float
    retention_hours: float


class Heartbeat(NamedTuple):
    """The database's answer to a heartbeat."""

    held: bool
    """False: the claim is no longer this worker's, and nothing it does may count."""
    cancel_requested: bool


class LostAttempt(NamedTuple):
    """A job whose attempt ended without a verdict, and what became of it."""

    job_id: UUID
    token: UUID
    state: JobState


def claim(session: Session, *, worker: str, lease_seconds: float) -> Claim | None:
    """Take the next job by priority, then age; None when there is none.

    The attempt is counted here, before anything runs, so that a job which kills its worker is counted too.
    SKIP LOCKED lets any number of workers claim at once without waiting for each other.
    """
    candidate = (
        select(Row.id)
        .where(Row.state == JobState.QUEUED, Row.run_after <= func.now(), Row.cancel_requested.is_(False))
        .order_by(Row.priority.desc(), Row.created_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    token = uuid4()
    row = session.execute(
        update(Row)
        .where(Row.id == candidate)
        .values(
            state=JobState.RUNNING.value,
            attempt=Row.attempt + 1,
            claim_token=token,
            lease_expires_at=func.now() + _seconds(lease_seconds),
            worker=worker,
            started_at=func.coalesce(Row.started_at, func.now()),
            progress_percent=0,
        )
        .returning(
            Row.id,
            Row.model_id,
            Row.attempt,
            Row.input_file,
            Row.priority,
            func.extract("epoch", func.now() - Row.created_at).label("waited_seconds"),
        )
    ).one_or_none()
    if row is None:
        return None
    return Claim(
        job_id=row.id,
        model_id=row.model_id,
        token=token,
        attempt=row.attempt,
        input_file=row.input_file,
        waited_seconds=float(row.waited_seconds),
        priority=Priority(row.priority),
    )


def heartbeat(session: Session, claim: Claim, *, lease_seconds: float, progress_percent: int) -> Heartbeat:
    """Extend the lease and tell the progress, which never goes back within an attempt."""
    cancel_requested = session.scalar(
        update(Row)
        .where(_held_by(claim))
        .values(
            lease_expires_at=func.now() + _seconds(lease_seconds),
            progress_percent=func.greatest(Row.progress_percent, progress_percent),
        )
        .returning(Row.cancel_requested)
    )
    return Heartbeat(held=cancel_requested is not None, cancel_requested=bool(cancel_requested))


def succeed(
    session: Session,
    claim: Claim,
    *,
    result_file: str,
    result_bytes: int,
    stage_seconds: Mapping[str, float],
    retention_hours: float,
) -> bool:
    """Make the result visible. False: the claim was lost or the job cancelled, and the result must be dropped."""
    return _settle(
        session,
        and_(_held_by(claim), Row.cancel_requested.is_(False)),
        JobState.SUCCEEDED,
        retention_hours,
        progress_percent=COMPLETE_PERCENT,
        result_file=result_file,
        result_bytes=result_bytes,
        stage_seconds=dict(stage_seconds),
        error_code=JobErrorCode.NONE,
        error_text="",
    )


def fail(session: Session, claim: Claim, *, code: JobErrorCode, reason: str, retention_hours: float) -> bool:
    """End the job with a verdict that another attempt would only repeat. False: the claim was lost."""
    return _settle(
        session, _held_by(claim), JobState.FAILED, retention_hours, error_code=code, error_text=_storable(reason)
    )


def cancel_claimed(session: Session, claim: Claim, *, retention_hours: float) -> bool:
    """End the job as cancelled, after its cancel flag was seen. False: the claim was lost."""
    return _settle(session, _held_by(claim), JobState.CANCELLED, retention_hours)


def lose_attempt(session: Session, claim: Claim, *, reason: str, policy: RetryPolicy) -> JobState | None:
    """Give the job back after a crash or time-out: queued again, or failed at the attempt limit.

    Returns:
        The job's new state; None when the claim was lost before.
    """
    lost = _lose_attempts(session, _held_by(claim), reason, policy)
    return lost[0].state if lost else None


def release(session: Session, claim: Claim) -> bool:
    """Give the job back uncounted, because the worker stops. False: the claim was lost, or a cancel came first."""
    result = session.execute(
        update(Row)
        .where(_held_by(claim), Row.cancel_requested.is_(False))
        .values(
            state=JobState.QUEUED.value,
            attempt=Row.attempt - 1,
            claim_token=None,
            lease_expires_at=None,
            worker=None,
            progress_percent=0,
        )
    )
    return _count(result) == 1


def reap_expired_leases(session: Session, *, lease_seconds: float, policy: RetryPolicy) -> list[LostAttempt]:
    """Take back every running job whose worker stopped sending heartbeats.

    Not within one lease of the database's own start: no worker could send a heartbeat while it was away.
    """
    started_long_ago = text("pg_postmaster_start_time() + make_interval(secs => :lease) < now()").bindparams(
        lease=lease_seconds
    )
    expired = and_(Row.state == JobState.RUNNING, Row.lease_expires_at < func.now(), started_long_ago)
    return _lose_attempts(session, expired, "its worker stopped answering", policy)


def _held_by(claim: Claim) -> ColumnElement[bool]:
    """The compare of every compare-and-set: the job is still running under this claim's token."""
    return and_(Row.id == claim.job_id, Row.claim_token == claim.token, Row.state == JobState.RUNNING)


def _settle(
    session: Session, condition: ColumnElement[bool], state: JobState, retention_hours: float, **values: Any
) -> bool:
    """Move the job to a finished state if `condition` still holds."""
    result = session.execute(
        update(Row)
        .where(condition)
        .values(
            state=state.value,
            claim_token=None,
            lease_expires_at=None,
            finished_at=func.now(),
            expires_at=func.now() + timedelta(hours=retention_hours),
            **values,
        )
    )
    return _count(result) == 1


def _lose_attempts(
    session: Session, condition: ColumnElement[bool], reason: str, policy: RetryPolicy
) -> list[LostAttempt]:
    """End the running attempts that meet `condition`: cancelled if asked for, failed at the limit, queued otherwise."""
    rows = session.execute(select(Row).where(condition).with_for_update(skip_locked=True)).scalars().all()
    lost = []
    for row in rows:
        token = row.claim_token
        if row.cancel_requested:
            state = JobState.CANCELLED
        elif row.attempt >= policy.attempt_limit:
            state = JobState.FAILED
            row.error_code = JobErrorCode.INTERNAL
            row.error_text = _storable(
                f"The model «{row.model_id}» did not finish in {row.attempt} "
                f"{'attempt' if row.attempt == 1 else 'attempts'}; the last one ended because {reason}. "
                "Ask the administrator of the server to look at the model."
            )
        else:
            state = JobState.QUEUED
            doublings = min(row.attempt - 1, MOST_BACK_OFF_DOUBLINGS)
            row.run_after = func.now() + _seconds(policy.retry_delay_seconds * 2**doublings)
            row.progress_percent = 0
        row.state = state.value
        row.claim_token = None
        row.lease_expires_at = None
        if state in FINISHED:
            row.finished_at = func.now()
            row.expires_at = func.now() + timedelta(hours=policy.retention_hours)
        if token is not None:
            lost.append(LostAttempt(row.id, token, state))
    session.flush()
    return lost


def _seconds(seconds: float) -> ColumnElement[timedelta]:
    return func.make_interval(0, 0, 0, 0, 0, 0, literal(float(seconds)))


def _storable(words: str) -> str:
    """Text from a model or a traceback, without what PostgreSQL cannot keep."""
    return words.encode(errors="replace").decode().replace("\x00", "\ufffd")


def _count(result: Any) -> int:
    return int(result.rowcount) if isinstance(result, CursorResult) else 0
