"""Segmentation jobs in PostgreSQL: the queue itself. Every time is the database's own clock, never a worker's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, and_, case, func, literal, or_, select, text, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from services.core.db.tables import SegmentationJobRow as Row
from services.core.jobs import (
    COMPLETE_PERCENT,
    FINISHED,
    Claim,
    Job,
    JobErrorCode,
    JobState,
    KeepInputs,
    NewJob,
    Priority,
)

FILES_PER_ROUND = 200
"""Files that one round of the janitor deletes at most, so that a round stays short."""
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


class DeletableFiles(NamedTuple):
    """Files of one job that its state no longer needs; None where there is nothing to delete."""

    job_id: UUID
    input_file: str | None
    result_file: str | None


# --- The API's side ------------------------------------------------------------------------------------------


def accept(session: Session, job: NewJob) -> Job:
    """Insert `job` as queued."""
    row = Row(
        id=job.id,
        model_id=job.model_id,
        priority=int(job.priority),
        input_file=job.input_file,
        input_bytes=job.input_bytes,
        voxel_count=job.voxel_count,
        client_version=job.client_version,
        remarks=job.remarks,
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    return _job(row)


def find(session: Session, job_id: UUID) -> Job | None:
    """The job of that identifier."""
    row = session.get(Row, job_id)
    return None if row is None else _job(row)


def expire_now(session: Session, job_id: UUID) -> None:
    """Let a succeeded job expire at once: its result was fetched and is to be fetched once only."""
    session.execute(
        update(Row).where(Row.id == job_id, Row.state == JobState.SUCCEEDED).values(state=JobState.EXPIRED.value)
    )


def count_by_state(session: Session) -> dict[JobState, int]:
    """Jobs in each state; states without any are 0."""
    counts = dict.fromkeys(JobState, 0)
    for state, count in session.execute(select(Row.state, func.count()).group_by(Row.state)):
        counts[JobState(state)] = count
    return counts


def oldest_queued_seconds(session: Session) -> float:
    """Age of the job that waits longest; 0 when none waits."""
    age = session.scalar(
        select(func.extract("epoch", func.now() - func.min(Row.created_at))).where(Row.state == JobState.QUEUED)
    )
    return float(age or 0)


# --- The worker's side ---------------------------------------------------------------------------------------


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


# --- The janitor's side --------------------------------------------------------------------------------------


def lead(session: Session, key: int) -> bool:
    """Whether this transaction is the leader for `key`; the lock ends with the transaction."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(key))))


def count_ready(session: Session) -> int:
    """Jobs that a worker could claim now."""
    return session.scalar(select(func.count()).where(Row.state == JobState.QUEUED, Row.run_after <= func.now())) or 0


def reap_expired_leases(session: Session, *, lease_seconds: float, policy: RetryPolicy) -> list[LostAttempt]:
    """Take back every running job whose worker stopped sending heartbeats.

    Not within one lease of the database's own start: no worker could send a heartbeat while it was away.
    """
    started_long_ago = text("pg_postmaster_start_time() + make_interval(secs => :lease) < now()").bindparams(
        lease=lease_seconds
    )
    expired = and_(Row.state == JobState.RUNNING, Row.lease_expires_at < func.now(), started_long_ago)
    return _lose_attempts(session, expired, "its worker stopped answering", policy)


def expire(session: Session) -> int:
    """Move finished jobs past their time to expired; returns how many."""
    result = session.execute(
        update(Row)
        .where(Row.state.in_(_values(FINISHED)), Row.expires_at < func.now())
        .values(state=JobState.EXPIRED.value)
    )
    return _count(result)


def deletable_files(session: Session, keep_inputs: KeepInputs) -> list[DeletableFiles]:
    """Files that the state of their row no longer needs."""
    spent = {
        KeepInputs.NEVER: FINISHED,
        KeepInputs.FAILED: frozenset({JobState.SUCCEEDED, JobState.CANCELLED}),
        KeepInputs.ALWAYS: frozenset[JobState](),
    }[keep_inputs] | {JobState.EXPIRED}
    input_spent = and_(Row.input_file.is_not(None), Row.state.in_(_values(spent)))
    result_spent = and_(Row.result_file.is_not(None), Row.state == JobState.EXPIRED)
    rows = session.execute(
        select(
            Row.id,
            case((input_spent, Row.input_file)).label("input_file"),
            case((result_spent, Row.result_file)).label("result_file"),
        )
        .where(or_(input_spent, result_spent))
        .limit(FILES_PER_ROUND)
    )
    return [DeletableFiles(row.id, row.input_file, row.result_file) for row in rows]


def forget_files(session: Session, deleted: Sequence[DeletableFiles]) -> None:
    """Note that these files are gone from the volume."""
    inputs = [files.job_id for files in deleted if files.input_file is not None]
    results = [files.job_id for files in deleted if files.result_file is not None]
    session.execute(update(Row).where(Row.id.in_(inputs)).values(input_file=None))
    session.execute(update(Row).where(Row.id.in_(results)).values(result_file=None))


# --- Shared --------------------------------------------------------------------------------------------------


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


def _job(row: Row) -> Job:
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
    )


def _values(states: frozenset[JobState]) -> list[str]:
    return sorted(state.value for state in states)


def _seconds(seconds: float) -> ColumnElement[timedelta]:
    return func.make_interval(0, 0, 0, 0, 0, 0, literal(float(seconds)))


def _storable(words: str) -> str:
    """Text from a model or a traceback, without what PostgreSQL cannot keep."""
    return words.encode(errors="replace").decode().replace("\x00", "\ufffd")


def _count(result: Any) -> int:
    return int(result.rowcount) if isinstance(result, CursorResult) else 0
