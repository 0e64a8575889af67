"""Feedback and telemetry: kept, whether or not the segmentation still exists."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from services.api.negotiation import require_protobuf
from services.api.uploads import UploadLimits, announced_bytes, read_whole
from services.core.db import feedback as rows
from services.core.db.session import AsyncDatabase
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
        await self._database.run(rows.store_feedback, feedback)
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
