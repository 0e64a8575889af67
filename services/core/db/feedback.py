"""What clients report, kept in PostgreSQL whether or not the segmentation still exists."""

from uuid import UUID

from sqlalchemy.orm import Session

from services.core.db.tables import FeedbackRow, StructureCommentRow, TelemetryRow
from services.core.feedback import Feedback, Telemetry


def store_feedback(session: Session, feedback: Feedback, *, submitted_by: str = "", job_id: UUID | None = None) -> None:
    """Keep `feedback` of whoever sent it; `job_id` is the job that it is about, where they may see it.

    An absent score is NULL.
    """
    session.add(
        FeedbackRow(
            segmentation_id=feedback.segmentation_id,
            submitted_by=submitted_by,
            job_id=job_id,
            client_version=feedback.client_version,
            accepted=feedback.accepted,
            comments=feedback.comments,
            score=feedback.score,
            structure_comments=[
                StructureCommentRow(
                    position=position,
                    structure_id=comment.structure_id,
                    comments=comment.comments,
                    score=comment.score,
                )
                for position, comment in enumerate(feedback.structure_comments)
            ],
        )
    )


def store_telemetry(session: Session, telemetry: Telemetry) -> None:
    """Keep `telemetry`."""
    session.add(
        TelemetryRow(
            segmentation_id=telemetry.segmentation_id,
            model_id=telemetry.model_id,
            client_version=telemetry.client_version,
            upload_ms=telemetry.upload_ms,
            wait_ms=telemetry.wait_ms,
            download_ms=telemetry.download_ms,
            retries=telemetry.retries,
            client_error=telemetry.client_error,
            client_error_information=telemetry.client_error_information,
        )
    )
