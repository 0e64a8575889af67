"""Claims: the queue itself, and the compare-and-set that every verdict of a worker is.

Every time is the database's own clock, never a worker's.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import ColumnElement, and_, func, literal, select, true, update
from sqlalchemy.orm import Session

from services.core.db import job_events
from services.core.db.pool_reach import within_reach
from services.core.db.storable_text import storable
from services.core.db.tables import SegmentationJobRow as Row
from services.core.jobs import COMPLETE_PERCENT, Claim, JobErrorCode, JobEventKind, JobState, Priority
from services.core.pools import Pool

STOPPING = "its worker was told to stop"

EVERY_MODEL = Pool()


class Heartbeat(NamedTuple):
    """The database's answer to a heartbeat."""

    held: bool
    """False: the claim is no longer this worker's, and nothing it does may count."""
    cancel_requested: bool


def claim(
    session: Session,
    *,
    worker: str,
    lease_seconds: float,
    pool: Pool = EVERY_MODEL,
    ready_for_seconds: float = 0.0,
    least_priority: Priority = Priority.BATCH,
    untried_only: bool = False,
) -> Claim | None:
    """Take the next job by priority, then age; None when there is none.

    Passed over are jobs of models that `pool` leaves to others, jobs of less than `least_priority`, and those that
    could have been claimed for less than `ready_for_seconds`, so that a busy worker leaves them to an idle one. With
    `untried_only` there is none while the next one has lost an attempt before: it is not passed over, or it would wait
    for ever where no worker falls idle.

    The attempt is counted here, before anything runs, so that a job which kills its worker is counted too.
    SKIP LOCKED lets any number of workers claim at once without waiting for each other.
    """
    candidate = (
        select(Row.id)
        .where(
            Row.state == JobState.QUEUED,
            Row.run_after <= func.now() - seconds(ready_for_seconds),
            Row.priority >= int(least_priority),
            Row.cancel_requested.is_(False),
            within_reach(Row.model_id, pool),
        )
        .order_by(Row.priority.desc(), Row.created_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    token = uuid4()
    row = session.execute(
        update(Row)
        .where(Row.id == candidate, Row.attempt == 0 if untried_only else true())
        .values(
            state=JobState.RUNNING.value,
            attempt=Row.attempt + 1,
            claim_token=token,
            lease_expires_at=func.now() + seconds(lease_seconds),
            worker=worker,
            started_at=func.coalesce(Row.started_at, func.now()),
            claimed_at=func.now(),
        )
        .returning(
            Row.id,
            Row.model_id,
            Row.attempt,
            Row.input_file,
            Row.input_sha256,
            Row.priority,
            func.extract("epoch", func.now() - Row.created_at).label("waited_seconds"),
        )
    ).one_or_none()
    if row is None:
        return None
    job_events.record(session, row.id, JobEventKind.CLAIMED, attempt=row.attempt, worker=worker)
    return Claim(
        job_id=row.id,
        model_id=row.model_id,
        token=token,
        attempt=row.attempt,
        input_file=row.input_file,
        waited_seconds=float(row.waited_seconds),
        priority=Priority(row.priority),
        input_sha256=row.input_sha256,
    )


def heartbeat(session: Session, claim: Claim, *, lease_seconds: float, progress_percent: int) -> Heartbeat:
    """Extend the lease and tell the progress, which never goes back, not even when another attempt begins."""
    cancel_requested = session.scalar(
        update(Row)
        .where(held_by(claim))
        .values(
            lease_expires_at=func.now() + seconds(lease_seconds),
            progress_percent=func.greatest(Row.progress_percent, progress_percent),
        )
        .returning(Row.cancel_requested)
    )
    return Heartbeat(held=cancel_requested is not None, cancel_requested=bool(cancel_requested))


def note(session: Session, claim: Claim, details: str) -> bool:
    """Put a remark into the job's time line. False: the claim was lost."""
    worker = session.scalar(select(Row.worker).where(held_by(claim)).with_for_update())
    if worker is None:
        return False
    job_events.record(
        session, claim.job_id, JobEventKind.NOTED, attempt=claim.attempt, worker=worker, details=storable(details)
    )
    return True


def succeed(
    session: Session,
    claim: Claim,
    *,
    result_file: str,
    result_bytes: int,
    result_sha256: str,
    stage_seconds: Mapping[str, float],
    retention_hours: float,
) -> bool:
    """Make the result visible. False: the claim was lost or the job cancelled, and the result must be dropped."""
    return _settle(
        session,
        and_(held_by(claim), Row.cancel_requested.is_(False)),
        JobState.SUCCEEDED,
        retention_hours,
        progress_percent=COMPLETE_PERCENT,
        result_file=result_file,
        result_bytes=result_bytes,
        result_sha256=result_sha256,
        # Without the wait for other jobs of the same worker, which says nothing about the next run.
        run_seconds=func.extract("epoch", func.clock_timestamp() - Row.claimed_at) - stage_seconds.get("wait", 0.0),
        stage_seconds=dict(stage_seconds),
        error_code=JobErrorCode.NONE,
        error_text="",
    )


def fail(session: Session, claim: Claim, *, code: JobErrorCode, reason: str, retention_hours: float) -> bool:
    """End the job with a verdict that another attempt would only repeat. False: the claim was lost."""
    reason = storable(reason)
    return _settle(
        session,
        held_by(claim),
        JobState.FAILED,
        retention_hours,
        details=reason,
        error_code=code,
        error_text=reason,
    )


def cancel_claimed(session: Session, claim: Claim, *, retention_hours: float) -> bool:
    """End the job as cancelled, after its cancel flag was seen. False: the claim was lost."""
    return _settle(session, held_by(claim), JobState.CANCELLED, retention_hours)


def release(session: Session, claim: Claim, *, reason: str = STOPPING) -> bool:
    """Give the job back uncounted. False: the claim was lost, or a cancel came first."""
    worker = session.scalar(
        update(Row)
        .where(held_by(claim), Row.cancel_requested.is_(False))
        .values(
            state=JobState.QUEUED.value,
            attempt=Row.attempt - 1,
            claim_token=None,
            lease_expires_at=None,
            run_after=func.now(),  # it has its place by age; that it is ready is news
        )
        .returning(Row.worker)
    )
    if worker is None:
        return False
    job_events.record(
        session, claim.job_id, JobEventKind.RELEASED, attempt=claim.attempt, worker=worker, details=reason
    )
    return True


def held_by(claim: Claim) -> ColumnElement[bool]:
    """The compare of every compare-and-set: the job is still running under this claim's token."""
    return and_(Row.id == claim.job_id, Row.claim_token == claim.token, Row.state == JobState.RUNNING)


def seconds(count: float) -> ColumnElement[timedelta]:
    """An interval."""
    return func.make_interval(0, 0, 0, 0, 0, 0, literal(float(count)))


def _settle(
    session: Session,
    condition: ColumnElement[bool],
    state: JobState,
    retention_hours: float,
    details: str = "",
    **values: Any,
) -> bool:
    """Move the running job to a finished state if `condition` still holds."""
    row = session.execute(
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
        .returning(Row.id, Row.attempt, Row.worker)
    ).one_or_none()
    if row is None:
        return False
    job_events.record(
        session, row.id, JobEventKind(state.value), attempt=row.attempt, worker=row.worker, details=details
    )
    return True
