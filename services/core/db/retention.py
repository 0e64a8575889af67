"""Retention: what expires, and which files the state of their row no longer needs."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import and_, case, func, or_, select, update
from sqlalchemy.orm import Session

from services.core.db import job_events
from services.core.db.tables import SegmentationJobRow as Row
from services.core.jobs import FINISHED, JobEventKind, JobState, KeepInputs

JOBS_PER_ROUND = 1000
"""Jobs that one round expires at most; the next comes within a second."""
FILES_PER_ROUND = 200
"""Files that one round of the janitor deletes at most, so that a round stays short."""


class DeletableFiles(NamedTuple):
    """Files of one job that its state no longer needs; None where there is nothing to delete."""

    job_id: UUID
    input_file: str | None
    result_file: str | None


def expire(session: Session) -> int:
    """Move finished jobs past their time to expired; returns how many."""
    due = (
        select(Row.id)
        .where(Row.state.in_(_values(FINISHED)), Row.expires_at < func.now())
        .limit(JOBS_PER_ROUND)
        .with_for_update(skip_locked=True)
    )
    expired = session.scalars(
        update(Row).where(Row.id.in_(due)).values(state=JobState.EXPIRED.value).returning(Row.id)
    ).all()
    job_events.record_all(session, expired, JobEventKind.EXPIRED)
    return len(expired)


def expire_now(session: Session, job_id: UUID) -> None:
    """Let a succeeded job expire at once: its result was fetched and is to be fetched once only."""
    expired = session.scalars(
        update(Row)
        .where(Row.id == job_id, Row.state == JobState.SUCCEEDED)
        .values(state=JobState.EXPIRED.value)
        .returning(Row.id)
    )
    job_events.record_all(session, expired, JobEventKind.EXPIRED, "its result was fetched, and may be fetched once")


def deletable_files(session: Session, keep_inputs: KeepInputs) -> list[DeletableFiles]:
    """Files that the state of their row no longer needs."""
    spent = {
        KeepInputs.NEVER: FINISHED,
        KeepInputs.FAILED: frozenset({JobState.SUCCEEDED, JobState.CANCELLED}),
        KeepInputs.ALWAYS: frozenset[JobState](),
    }[keep_inputs] | {JobState.EXPIRED}
    input_spent = and_(Row.input_file.is_not(None), Row.state.in_(_values(spent)))
    # A result that was found damaged stays until its job expires: it is evidence, and some of it may be rescued.
    result_spent = and_(Row.result_file.is_not(None), Row.state == JobState.EXPIRED)
    rows = session.execute(
        select(
            Row.id,
            case((input_spent, Row.input_file)).label("input_file"),
            case((result_spent, Row.result_file)).label("result_file"),
        )
        .where(or_(input_spent, result_spent))
        .order_by(func.random())  # files that cannot be deleted must not be all that each round sees
        .limit(FILES_PER_ROUND)
    )
    return [DeletableFiles(row.id, row.input_file, row.result_file) for row in rows]


def forget_files(session: Session, deleted: Sequence[DeletableFiles]) -> None:
    """Note that these files are gone from the volume."""
    inputs = [files.job_id for files in deleted if files.input_file is not None]
    results = [files.job_id for files in deleted if files.result_file is not None]
    session.execute(update(Row).where(Row.id.in_(inputs)).values(input_file=None))
    session.execute(update(Row).where(Row.id.in_(results)).values(result_file=None))


def _values(states: frozenset[JobState]) -> list[str]:
    return sorted(state.value for state in states)
