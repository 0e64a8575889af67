"""SegmentationTask and SegmentationProgress: the receipt, and how far it is."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from services.core.errors import MalformedMessage
from services.core.jobs import (
    COMPLETE_PERCENT,
    MOST_UNFINISHED_PERCENT,
    Job,
    JobErrorCode,
    JobState,
)
from services.core.wire._pb import Model_pb2 as pb
from services.core.wire.fields import Encoding, parse, serialize, timestamp


@dataclass(frozen=True, slots=True)
class SegmentationTask:
    """The receipt of an accepted request."""

    segmentation_id: UUID
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a segmentation is. Done at 100; failed when `error_text` is not empty."""

    percent: int
    error_text: str = ""
    error_code: JobErrorCode = JobErrorCode.NONE


def progress_of(job: Job) -> Progress:
    """What a client is told of `job`."""
    if job.state is JobState.SUCCEEDED:
        return Progress(COMPLETE_PERCENT)
    percent = min(job.progress_percent, MOST_UNFINISHED_PERCENT)
    if job.state is JobState.CANCELLED:
        return Progress(percent, "The segmentation was cancelled.", JobErrorCode.UNKNOWN_CLIENT)
    if job.state is JobState.FAILED:
        return Progress(percent, job.error_text or "The segmentation failed.", job.error_code or JobErrorCode.INTERNAL)
    return Progress(percent)


def encode_progress(progress: Progress, encoding: Encoding) -> bytes:
    """The SegmentationProgress message."""
    message = pb.SegmentationProgress(
        Progress=progress.percent,
        Errors=progress.error_text,
        ErrorCode=int(progress.error_code),  # type: ignore[arg-type] # the enumerations share their numbers
    )
    return serialize(message, encoding)


def decode_progress(data: bytes) -> Progress:
    """A serialized SegmentationProgress.

    Raises:
        MalformedMessage: it does not parse.
    """
    message = parse(pb.SegmentationProgress, data)
    try:
        code = JobErrorCode(message.ErrorCode)
    except ValueError:
        code = JobErrorCode.INTERNAL
    return Progress(message.Progress, message.Errors, code)


def encode_task(task: SegmentationTask, encoding: Encoding) -> bytes:
    """The SegmentationTask message."""
    message = pb.SegmentationTask(SegmentationID=str(task.segmentation_id), StartTime=timestamp(task.started_at))
    return serialize(message, encoding)


def decode_task(data: bytes) -> SegmentationTask:
    """A serialized SegmentationTask.

    Raises:
        MalformedMessage: it does not parse, or names no segmentation.
    """
    message = parse(pb.SegmentationTask, data)
    try:
        segmentation_id = UUID(message.SegmentationID)
    except ValueError as error:
        raise MalformedMessage(f"The server answered with «{message.SegmentationID}» for an identifier.") from error
    return SegmentationTask(segmentation_id, message.StartTime.ToDatetime(tzinfo=UTC))
