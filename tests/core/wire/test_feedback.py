"""Feedback and telemetry: an empty body is valid, an absent score is not a score of 0."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings

from services.core.errors import MalformedMessage
from services.core.feedback import Feedback, StructureComment, Telemetry
from services.core.wire._pb import Model_pb2 as pb
from services.core.wire.feedback import decode_feedback, decode_telemetry
from tests.core.messages import messages, wire


def test_an_empty_body_is_all_defaults() -> None:
    assert decode_feedback(b"") == Feedback()
    assert decode_telemetry(b"") == Telemetry()


@pytest.mark.parametrize("score", [None, 0.0, -1.5, 5.0])
def test_a_score_is_kept_and_its_absence_too(score: float | None) -> None:
    given_score = None if score is None else {"Value": score}
    message = pb.SegmentationFeedback(GeneralScore=given_score, StructureComments=[{"Score": given_score}])
    feedback = decode_feedback(wire(message))
    assert feedback.score == score
    assert (feedback.score is None) == (score is None)
    assert feedback.structure_comments == (StructureComment(score=score),)


@settings(max_examples=50, deadline=None)
@given(messages(pb.SegmentationFeedback))
def test_any_feedback_is_read_whole(message: pb.SegmentationFeedback) -> None:
    feedback = decode_feedback(wire(message))
    assert feedback.client_version == message.ClientInformation.SoftwareVersion
    assert feedback.segmentation_id == message.SegmentationID
    assert (feedback.accepted, feedback.comments) == (message.SegmentationAccepted, message.GeneralComments)
    assert feedback.score == (message.GeneralScore.Value if message.HasField("GeneralScore") else None)
    assert [(c.structure_id, c.comments) for c in feedback.structure_comments] == [
        (c.StructureID, c.Comments) for c in message.StructureComments
    ]


@settings(max_examples=50, deadline=None)
@given(messages(pb.SegmentationTelemetry))
def test_any_telemetry_is_read_whole(message: pb.SegmentationTelemetry) -> None:
    assert decode_telemetry(wire(message)) == Telemetry(
        client_version=message.ClientInformation.SoftwareVersion,
        segmentation_id=message.SegmentationID,
        model_id=message.ModelID,
        upload_ms=message.UploadTimeInMilliseconds,
        wait_ms=message.SegmentationWaitInMilliseconds,
        download_ms=message.SegmentationDownloadInMilliseconds,
        retries=message.NumberOfRetries,
        client_error=message.ClientError,
        client_error_information=message.ClientErrorInformation,
    )


@pytest.mark.parametrize("decode", [decode_feedback, decode_telemetry])
@pytest.mark.parametrize("data", [b"\x0a\x05abc", b"<html>", b"\x0a\x03\x0a\x01\xff"])
def test_what_does_not_parse_is_malformed(decode: Callable[[bytes], object], data: bytes) -> None:
    with pytest.raises(MalformedMessage, match="does not parse"):
        decode(data)


@pytest.mark.parametrize(
    "message",
    [
        pb.SegmentationFeedback(GeneralComments="\0"),
        pb.SegmentationFeedback(SegmentationID="\0"),
        pb.SegmentationFeedback(ClientInformation={"SoftwareVersion": "\0"}),
        pb.SegmentationFeedback(StructureComments=[{"Comments": "\0"}]),
        pb.SegmentationFeedback(StructureComments=[{"StructureID": "\0"}]),
    ],
)
def test_feedback_with_nul_cannot_be_kept(message: pb.SegmentationFeedback) -> None:
    with pytest.raises(MalformedMessage, match="NUL"):
        decode_feedback(wire(message))


@pytest.mark.parametrize("name", ["ModelID", "SegmentationID", "ClientErrorInformation"])
def test_telemetry_with_nul_cannot_be_kept(name: str) -> None:
    message = pb.SegmentationTelemetry()
    setattr(message, name, "a\0")
    with pytest.raises(MalformedMessage, match="NUL"):
        decode_telemetry(wire(message))
