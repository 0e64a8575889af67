"""Rows and the files they name: which files anybody needs, and what becomes of a row whose file is gone or damaged."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from services.core.db import job_events
from services.core.db.tables import ModelFileRow
from services.core.db.tables import SegmentationJobRow as Row
from services.core.jobs import JobErrorCode, JobEventKind, JobState


@dataclass(frozen=True, slots=True)
class NamedFiles:
    """Files that rows name, as names below their folder."""

    inputs: frozenset[str]
    results: frozenset[str]
    attempts: frozenset[tuple[UUID, UUID]]
    """Job and token of each running attempt, whose result may be about to be written."""
    models: frozenset[str]
    needed_inputs: Mapping[str, UUID]
    """Those of queued jobs: without the file the job cannot run."""
    needed_results: Mapping[str, UUID]
    """Those of succeeded jobs: without the file the job has nothing to show."""


def named_files(session: Session) -> NamedFiles:
    """Every file that a row names."""
    rows = session.execute(
        select(Row.id, Row.state, Row.input_file, Row.result_file, Row.claim_token).where(
            or_(Row.input_file.is_not(None), Row.result_file.is_not(None))
        )
    ).all()
    return NamedFiles(
        inputs=frozenset(row.input_file for row in rows if row.input_file),
        results=frozenset(row.result_file for row in rows if row.result_file),
        attempts=frozenset((row.id, row.claim_token) for row in rows if row.claim_token),
        models=frozenset(session.scalars(select(ModelFileRow.name))),
        needed_inputs={row.input_file: row.id for row in rows if row.state == JobState.QUEUED and row.input_file},
        needed_results={row.result_file: row.id for row in rows if row.state == JobState.SUCCEEDED and row.result_file},
    )


def fail_without_input(session: Session, job_ids: Collection[UUID], *, retention_hours: float) -> list[UUID]:
    """Fail queued jobs whose input is gone; returns which."""
    reason = "The uploaded volume is not on the server's volume any more; submit it again."
    return _fail(session, JobState.QUEUED, job_ids, reason, retention_hours)


def fail_result(
    session: Session, job_ids: Collection[UUID], what_happened: str, *, retention_hours: float
) -> list[UUID]:
    """Fail succeeded jobs whose result must not or cannot be shown; returns which.

    Args:
        what_happened: follows «The result».
    """
    reason = f"The result {what_happened}; submit the volume again."
    return _fail(session, JobState.SUCCEEDED, job_ids, reason, retention_hours)


def _fail(
    session: Session, state: JobState, job_ids: Collection[UUID], reason: str, retention_hours: float
) -> list[UUID]:
    failed = session.scalars(
        update(Row)
        .where(Row.id.in_(job_ids), Row.state == state)
        .values(
            state=JobState.FAILED.value,
            error_code=JobErrorCode.INTERNAL,
            error_text=reason,
            finished_at=func.coalesce(Row.finished_at, func.now()),
            expires_at=func.coalesce(Row.expires_at, func.now() + timedelta(hours=retention_hours)),
        )
        .returning(Row.id)
    ).all()
    job_events.record_all(session, failed, JobEventKind.FAILED, reason)
    return list(failed)
