"""The receipt of a request, and how far it is: what a polling client may rely on."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest

from services.core.errors import MalformedMessage
from services.core.jobs import Job, JobErrorCode, JobState, Priority
from services.core.wire._pb import Model_pb2 as pb
from services.core.wire.fields import Encoding
from services.core.wire.segmentations import (
    Progress,
    SegmentationTask,
    decode_progress,
    decode_task,
    encode_progress,
    encode_task,
    progress_of,
)
from tests.core.messages import wire

JOB_ID = UUID("0AB6B3F4-6E0C-4B0F-9E9B-0123456789AB")
NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


def job(
    state: JobState, percent: int = 0, code: JobErrorCode = JobErrorCode.NONE, text: str = "", cancel: bool = False
) -> Job:
    return Job(
        id=JOB_ID,
        model_id="m",
        state=state,
        priority=Priority.INTERACTIVE,
        progress_percent=percent,
        error_code=code,
        error_text=text,
        attempt=1,
        cancel_requested=cancel,
        input_file=None,
        result_file=None,
        created_at=NOW,
        started_at=None,
        finished_at=None,
        expires_at=None,
    )


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("percent", [0, 42, 99, 100])
def test_only_a_succeeded_job_says_100(state: JobState, percent: int) -> None:
    progress = progress_of(job(state, percent))
    assert (progress.percent == 100) == (state is JobState.SUCCEEDED)
    assert progress.percent == (100 if state is JobState.SUCCEEDED else min(percent, 99))


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("text", ["", "went wrong"])
def test_exactly_failed_and_cancelled_jobs_say_an_error(state: JobState, text: str) -> None:
    progress = progress_of(job(state, 7, text=text))
    is_wrong = state in (JobState.FAILED, JobState.CANCELLED)
    assert bool(progress.error_text) == is_wrong
    assert (progress.error_code is not JobErrorCode.NONE) == is_wrong


@pytest.mark.parametrize("code", JobErrorCode)
def test_a_failed_job_tells_why(code: JobErrorCode) -> None:
    progress = progress_of(job(JobState.FAILED, 10, code, "why"))
    assert progress == Progress(10, "why", code or JobErrorCode.INTERNAL)


def test_a_running_job_that_is_to_be_cancelled_is_still_running() -> None:
    assert progress_of(job(JobState.RUNNING, 30, cancel=True)) == Progress(30)


@pytest.mark.parametrize("code", JobErrorCode)
def test_progress_survives(code: JobErrorCode) -> None:
    progress = Progress(42, "ünicode", code)
    assert decode_progress(encode_progress(progress, Encoding.PROTOBUF)) == progress


def test_error_codes_have_the_numbers_of_the_wire() -> None:
    names = {0: "None", 1: "InternalError", 2: "UnknownClientError", 3: "DecompressionError"}
    assert {code: pb.SegmentationProgress.ErrorCodes.Name(code) for code in list(JobErrorCode)[:4]} == names
    assert len(JobErrorCode) == len(pb.SegmentationProgress.ErrorCodes.values())


def test_no_progress_is_written_too_in_json() -> None:
    document = json.loads(encode_progress(Progress(0), Encoding.JSON))
    assert document == {"Progress": 0, "Errors": "", "ErrorCode": "None"}


def test_an_error_code_of_a_newer_server_is_an_internal_error() -> None:
    message = pb.SegmentationProgress(Progress=1, Errors="e", ErrorCode=99)  # type: ignore[arg-type] # open enum
    assert decode_progress(wire(message)).error_code is JobErrorCode.INTERNAL


def test_a_receipt_names_the_segmentation_in_lower_case_with_dashes() -> None:
    data = encode_task(SegmentationTask(JOB_ID, NOW), Encoding.PROTOBUF)
    assert pb.SegmentationTask.FromString(data).SegmentationID == "0ab6b3f4-6e0c-4b0f-9e9b-0123456789ab"
    assert decode_task(data) == SegmentationTask(JOB_ID, NOW)
    document = json.loads(encode_task(SegmentationTask(JOB_ID, NOW), Encoding.JSON))
    assert document == {"SegmentationID": str(JOB_ID), "StartTime": "2026-01-02T03:04:05.678901Z"}


@pytest.mark.parametrize("data", [b"", b"\x0a\x03abc", b"<html>"])
def test_a_receipt_without_an_identifier_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_task(data)


def test_progress_that_does_not_parse_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match="SegmentationProgress"):
        decode_progress(b"\x08")
