"""What clients report: feedback with the comments on each structure, and telemetry. Read only."""

from typing import Any, ClassVar

from sqlalchemy import Text, cast
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request
from starlette_admin.fields import (
    BooleanField,
    ComputedField,
    DateTimeField,
    FloatField,
    IntegerField,
    StringField,
    TextAreaField,
)

from services.api.console.tables.readable import ReadAs, model_of_feedback, name_in, structure_comments
from services.api.console.tables.table import Table, named
from services.core.db.tables import FeedbackRow, SegmentationJobRow, TelemetryRow
from services.core.wire.enumerations import CLIENT_ERRORS


async def _model_id(request: Request, row: Any) -> str:
    """The model version of the job that it is about, as that job ran it."""
    session: AsyncSession = request.state.session
    job = None if row.job_id is None else await session.get(SegmentationJobRow, row.job_id)
    return "" if job is None else job.model_id


def _structures(_: Request, row: Any) -> str:
    """One line for each structure that was commented on."""
    lines = []
    for comment in row.structure_comments:
        score = "" if comment.score is None else f" ({comment.score:g})"
        lines.append(f"{comment.structure_id}{score}: {comment.comments}")
    return "\n".join(lines)


class FeedbackTable(Table):
    """What users think of results."""

    key = "feedback"
    display_name = "Feedback"
    menu_label = "Feedback"
    fields = [
        IntegerField("id", "No."),
        DateTimeField("created_at", "Received"),
        StringField("segmentation_id", "Segmentation"),
        ComputedField("model", "Model version", getter=_model_id),
        ComputedField(
            "job",
            "Job",
            getter=lambda _, row: "" if row.job_id is None else str(row.job_id),
            list_template="console/job_link.html",
            detail_template="console/job_link.html",
        ),
        StringField("submitted_by", "Sent by"),
        BooleanField("accepted", "Accepted"),
        FloatField("score", "Score"),
        TextAreaField("comments", "Comments"),
        ComputedField(
            "structures", "Comments on structures", getter=_structures, detail_template="fields/detail/textarea.html"
        ),
        StringField("client_version", "Client"),
    ]
    read_as: ClassVar[ReadAs] = {
        "model": model_of_feedback(),
        "job": cast(FeedbackRow.job_id, Text),
        "structures": structure_comments(),
    }
    searchable_fields = ["segmentation_id", "model", "submitted_by", "comments", "structures", "client_version"]
    fields_default_sort = [("id", True)]


class StructureCommentTable(Table):
    """What users think of single structures."""

    key = "structure-comment"
    display_name = "Structure comment"
    menu_label = "Structure comments"
    fields = [
        IntegerField("feedback_id", "Feedback no."),
        IntegerField("position", "Position"),
        StringField("structure_id", "Structure"),
        FloatField("score", "Score"),
        TextAreaField("comments", "Comments"),
    ]
    searchable_fields = ["structure_id", "comments"]
    fields_default_sort = [("feedback_id", True)]


class TelemetryTable(Table):
    """What clients measured."""

    key = "telemetry"
    display_name = "Telemetry"
    menu_label = "Telemetry"
    fields = [
        IntegerField("id", "No."),
        DateTimeField("created_at", "Received"),
        StringField("segmentation_id", "Segmentation"),
        StringField("model_id", "Model"),
        IntegerField("upload_ms", "Upload, ms"),
        IntegerField("wait_ms", "Wait, ms"),
        IntegerField("download_ms", "Download, ms"),
        IntegerField("retries", "Retries"),
        named("client_error", "Client error", CLIENT_ERRORS),
        TextAreaField("client_error_information", "Information"),
        StringField("client_version", "Client"),
    ]
    read_as: ClassVar[ReadAs] = {"client_error": name_in(CLIENT_ERRORS, TelemetryRow.client_error)}
    searchable_fields = ["segmentation_id", "model_id", "client_error", "client_error_information"]
    fields_default_sort = [("id", True)]
