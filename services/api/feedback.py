"""Feedback and telemetry: kept, whether or not the segmentation still exists.

Feedback on a segmentation that its sender may not see is kept like that on one that never was: the answer tells nobody
what there is, and it counts for no job and no model.
"""

from uuid import UUID

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from services.api.callers import Caller, caller_of
from services.api.negotiation import require_protobuf
from services.api.uploads import UploadLimits, announced_bytes, read_whole
from services.core.db import feedback as rows
from services.core.db import jobs
from services.core.db.session import AsyncDatabase, Session
from services.core.feedback import Feedback as FeedbackValue
from services.core.settings import Settings
from services.core.wire.feedback import decode_feedback, decode_telemetry


class Feedback:
    """The routes that clients report to."""

    def __init__(self, database: AsyncDatabase, settings: Settings) -> None:
        self._database = database
        self._limits = UploadLimits(
            settings.max_report_bytes, settings.upload_idle_seconds, settings.upload_limit_seconds
        )

    async def feedback(self, request: Request) -> Response:
        """POST /api/v2/Feedback/segmentation ← SegmentationFeedback."""
        feedback = decode_feedback(await self._body(request))
        await self._database.run(_store, feedback, caller_of(request))
        return PlainTextResponse("Feedback received")

    async def telemetry(self, request: Request) -> Response:
        """POST /api/v2/Telemetry/segmentation ← SegmentationTelemetry."""
        telemetry = decode_telemetry(await self._body(request))
        await self._database.run(rows.store_telemetry, telemetry)
        return PlainTextResponse("Telemetry received")

    async def _body(self, request: Request) -> bytes:
        require_protobuf(request)
        announced_bytes(request, self._limits.most_bytes)
        return await read_whole(request, self._limits)


def _store(session: Session, feedback: FeedbackValue, caller: Caller) -> None:
    """Keep it, and which job it is about if that is there for the caller."""
    job = jobs.find(session, identifier) if (identifier := _identifier(feedback.segmentation_id)) else None
    job_id = None if job is None or not caller.sees(job) else job.id
    rows.store_feedback(session, feedback, submitted_by=caller.actor, job_id=job_id)


def _identifier(text: str) -> UUID | None:
    """`text` as the identifier of a segmentation, in any spelling that the routes take."""
    try:
        return UUID(text)
    except ValueError:
        return None
