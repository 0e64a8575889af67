"""What an operator does to jobs besides cancelling: another priority, and another try of one that has ended."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from services.core.db import job_events, jobs
from services.core.db.tables import SegmentationJobRow as Row
from services.core.errors import SegmentationFinished, SegmentationUnknown
from services.core.jobs import FINISHED, Job, JobEventKind, JobState, NewJob, Priority


@dataclass(frozen=True, slots=True)
class KeptInput:
    """The input of a job that has ended, still on the volume as far as its row says."""

    job: Job
    input_file: str
    voxel_count: int
    client_version: str


def set_priority(session: Session, job_id: UUID, priority: Priority, who: str) -> Job:
    """Let a job that waits be claimed earlier or later.

    Raises:
        SegmentationUnknown: there is no such job.
        SegmentationFinished: it does not wait any more.
    """
    row = session.get(Row, job_id, with_for_update=True)
    if row is None:
        raise SegmentationUnknown(f"There is no segmentation {job_id}.")
    if row.state != JobState.QUEUED:
        raise SegmentationFinished(f"The segmentation {job_id} is {row.state}; only one that waits has a priority.")
    if row.priority != int(priority):
        row.priority = int(priority)
        job_events.record(
            session,
            job_id,
            JobEventKind.NOTED,
            attempt=row.attempt,
            details=f"priority {priority.name.lower()}, by {who}",
        )
    session.flush()
    return jobs.as_job(row)


def kept_input(session: Session, job_id: UUID) -> KeptInput:
    """What another try of the job starts from.

    Raises:
        SegmentationUnknown: there is no such job.
        SegmentationFinished: it has not ended, or its input is not kept any more.
    """
    row = session.get(Row, job_id)
    if row is None:
        raise SegmentationUnknown(f"There is no segmentation {job_id}.")
    if row.state not in FINISHED:
        raise SegmentationFinished(f"The segmentation {job_id} is {row.state}; only one that has ended is tried again.")
    if row.input_file is None:
        raise SegmentationFinished(
            f"The input of {job_id} is not kept any more (SEGINT_KEEP_INPUTS says which are); submit the volume again."
        )
    return KeptInput(jobs.as_job(row), row.input_file, row.voxel_count, row.client_version)


def accept_again(session: Session, new_job: NewJob, earlier: UUID, who: str) -> Job:
    """Accept `new_job`, whose input is that of the job `earlier`, and note it on both time lines."""
    job = jobs.accept(session, new_job)
    job_events.record(session, job.id, JobEventKind.NOTED, details=f"another try of {earlier}, by {who}")
    job_events.record(session, earlier, JobEventKind.NOTED, details=f"tried again as {job.id}, by {who}")
    return job
