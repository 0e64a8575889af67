"""A segmentation job: its states, the legal transitions between them, and the values that describe it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from uuid import UUID


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.QUEUED}),
    JobState.SUCCEEDED: frozenset({JobState.EXPIRED}),
    JobState.FAILED: frozenset({JobState.EXPIRED}),
    JobState.CANCELLED: frozenset({JobState.EXPIRED}),
    JobState.EXPIRED: frozenset(),
}
"""Every legal change of state. `running → queued` is an attempt lost or released."""

UNFINISHED = frozenset({JobState.QUEUED, JobState.RUNNING})
FINISHED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


class Priority(IntEnum):
    """Higher is claimed first."""

    BATCH = 0
    INTERACTIVE = 10


class KeepInputs(StrEnum):
    """Which finished jobs keep their input on the volume until they expire."""

    NEVER = "never"
    FAILED = "failed"
    ALWAYS = "always"


class JobErrorCode(IntEnum):
    """The wire's SegmentationProgress.ErrorCodes."""

    NONE = 0
    INTERNAL = 1
    UNKNOWN_CLIENT = 2
    DECOMPRESSION = 3
    DECOMPRESSION_BUFFER_SIZE_MISMATCH = 4


COMPLETE_PERCENT = 100
MOST_UNFINISHED_PERCENT = 99
"""Clients take 100 for «the result is there», so nothing else may reach it."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """An accepted upload, about to become a row."""

    id: UUID
    model_id: str
    input_file: str
    input_bytes: int
    """Size of the request body."""
    voxel_count: int
    """Over all channels."""
    client_version: str
    priority: Priority
    remarks: str = ""
    """What was noticed at the door, such as constraints of the family that the volumes do not meet."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the API sees it. Times are UTC."""

    id: UUID
    model_id: str
    state: JobState
    priority: Priority
    progress_percent: int
    error_code: JobErrorCode
    error_text: str
    attempt: int
    cancel_requested: bool
    input_file: str | None
    result_file: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    stage_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this worker may run until its lease ends. The token fences every later write."""

    job_id: UUID
    model_id: str
    token: UUID
    attempt: int
    input_file: str
    waited_seconds: float
    """Between acceptance and this claim."""
    priority: Priority = Priority.INTERACTIVE
