"""SegmentationFeedback and SegmentationTelemetry → `services.core.feedback`. An empty body is valid for both."""

from services.core.errors import MalformedMessage
from services.core.feedback import Feedback, StructureComment, Telemetry
from services.core.wire._pb import Model_pb2 as pb
from services.core.wire.fields import parse, score_from, text

MOST_STRUCTURE_COMMENTS = 1000
"""Far more structures than any model draws; empty comments cost a sender two bytes each, and a row each here."""


def decode_feedback(data: bytes) -> Feedback:
    """A serialized SegmentationFeedback.

    Raises:
        MalformedMessage: it does not parse, or holds text that cannot be stored.
    """
    message = parse(pb.SegmentationFeedback, data)
    if len(message.StructureComments) > MOST_STRUCTURE_COMMENTS:
        raise MalformedMessage(
            f"The feedback has {len(message.StructureComments)} StructureComments; "
            f"send at most {MOST_STRUCTURE_COMMENTS}."
        )
    return Feedback(
        client_version=text(message.ClientInformation.SoftwareVersion, "SoftwareVersion"),
        segmentation_id=text(message.SegmentationID, "SegmentationID"),
        accepted=message.SegmentationAccepted,
        comments=text(message.GeneralComments, "GeneralComments"),
        score=score_from(message, "GeneralScore"),
        structure_comments=tuple(
            StructureComment(
                structure_id=text(comment.StructureID, "StructureComment.StructureID"),
                comments=text(comment.Comments, "StructureComment.Comments"),
                score=score_from(comment, "Score"),
            )
            for comment in message.StructureComments
        ),
    )


def decode_telemetry(data: bytes) -> Telemetry:
    """A serialized SegmentationTelemetry.

    Raises:
        MalformedMessage: it does not parse, or holds text that cannot be stored.
    """
    message = parse(pb.SegmentationTelemetry, data)
    return Telemetry(
        client_version=text(message.ClientInformation.SoftwareVersion, "SoftwareVersion"),
        segmentation_id=text(message.SegmentationID, "SegmentationID"),
        model_id=text(message.ModelID, "ModelID"),
        upload_ms=message.UploadTimeInMilliseconds,
        wait_ms=message.SegmentationWaitInMilliseconds,
        download_ms=message.SegmentationDownloadInMilliseconds,
        retries=message.NumberOfRetries,
        client_error=message.ClientError,
        client_error_information=text(message.ClientErrorInformation, "ClientErrorInformation"),
    )
