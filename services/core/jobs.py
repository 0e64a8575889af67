"""A segmentation job: its states, the legal transitions between them, and the values that describe it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any
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
    JobState.SUCCEEDED: frozenset({JobState.EXPIRED, JobState.FAILED}),
    JobState.FAILED: frozenset({JobState.EXPIRED}),
    JobState.CANCELLED: frozenset({JobState.EXPIRED}),
    JobState.EXPIRED: frozenset(),
}
"""Every legal change of state. `running → queued` is an attempt lost or released, `succeeded → failed` a result that
was damaged or lost on the volume."""

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
    input_sha256: str = ""
    """Of the request body, hexadecimal."""
    submitted_by: str = ""
    """In the audit's words: `token:NAME`, `network:ADDRESS`."""
    token_id: int | None = None
    """The token whose job it is; None: submitted without one."""


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
    """When its first attempt began."""
    finished_at: datetime | None
    expires_at: datetime | None
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    claimed_at: datetime | None = None
    """When its last attempt began."""
    worker: str | None = None
    """Who runs it, or ran it last."""
    remarks: str = ""
    input_bytes: int = 0
    input_sha256: str | None = None
    """Hexadecimal; None for jobs from before digests were kept. So is the result's."""
    result_bytes: int | None = None
    result_sha256: str | None = None
    submitted_by: str = ""
    """In the audit's words; empty for jobs from before it was kept."""
    token_id: int | None = None
    """The token whose job it is; None: submitted without one."""


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
    input_sha256: str | None = None
    """What the input's bytes must hash to, hexadecimal; None where it was not kept."""


class JobEventKind(StrEnum):
    """What may happen to a job, in the words of its time line."""

    ACCEPTED = "accepted"
    CLAIMED = "claimed"
    RELEASED = "released"
    """Given back by a worker that stops, or whose device is in use for long; the attempt does not count."""
    LOST = "lost"
    """An attempt ended without a verdict; another follows."""
    NOTED = "noted"
    """Something about the run that a person should know; changes nothing."""
    CANCEL_REQUESTED = "cancel_requested"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One entry of a job's time line."""

    at: datetime
    kind: JobEventKind
    attempt: int
    """The attempt it belongs to, counted from 1; 0 before the first."""
    worker: str | None
    details: str
    """Why, in words; may be empty."""


@dataclass(frozen=True, slots=True)
class RanWith:
    """What ran the last attempt of a job, as it was then. Digests are SHA-256, hexadecimal."""

    runtime: str
    model_sha256: str | None
    """None for a runtime that needs no file; so is the module's."""
    module_sha256: str | None
    options: Mapping[str, Any]
    software_version: str
    """The worker's."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job with its surroundings, as a person who waits for it wants to know."""

    job: Job
    events: tuple[JobEvent, ...]
    """Oldest first."""
    queue_position: int | None
    """1 is claimed next; None unless it is queued."""
    remaining_seconds: float | None
    """Estimate from the history of the models involved; None where there is none, and once it is finished."""
    obstacle: str = ""
    """Why no worker that is there will take it; empty where one will, and once one has."""
    ran_with: RanWith | None = None
