"""Results: whole or not at all, with their digest as ETag, in ranges where a download broke off."""

import logging
import re
from pathlib import Path

import anyio
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from services.api.metrics import Metrics
from services.api.mount import Mount
from services.api.negotiation import label, wanted_encoding
from services.api.one_shot import OneShotResponse
from services.core.blobs import Blobs
from services.core.db import retention, stored_files
from services.core.db.session import AsyncDatabase
from services.core.errors import ResultNotReady, SegmentationUnsuccessful
from services.core.jobs import UNFINISHED, Job, JobState
from services.core.settings import Settings
from services.core.wire.fields import Encoding
from services.core.wire.model_output import transcode_model_output
from services.core.wire.segmentations import progress_of

logger = logging.getLogger(__name__)

MOST_TRANSCODINGS = 2
"""A result as JSON takes about three times its size in memory while it is made; Velocity asks for protobuf."""

_RANGES = re.compile(r"bytes=\s*((?:\d+-\d*|-\d+)(?:\s*,\s*(?:\d+-\d*|-\d+))*)\s*", re.ASCII | re.IGNORECASE)


class Results:
    """Gives results out. A result is read once to check it and once to send it, so that no damaged byte is sent."""

    def __init__(
        self, settings: Settings, database: AsyncDatabase, blobs: Blobs, mount: Mount, metrics: Metrics
    ) -> None:
        self._one_shot = settings.one_shot_results
        self._retention_hours = settings.result_retention_hours
        self._database = database
        self._blobs = blobs
        self._mount = mount
        self._metrics = metrics
        self._transcoding = anyio.CapacityLimiter(MOST_TRANSCODINGS)

    async def respond(self, request: Request, job: Job) -> Response:
        """The ModelOutput of `job`, its ETag the SHA-256 of the protobuf message.

        Raises:
            ResultNotReady: the job has not finished.
            SegmentationUnsuccessful: it has no result, or a damaged one; then it counts as failed from now on.
            StorageAway: the volume is not there, or another one.
        """
        path = await self.whole_file(job)
        encoding = wanted_encoding(request)
        media_type = label(request, encoding)
        headers = {"Cache-Control": "private, no-cache", "Vary": "Accept"}
        if job.result_sha256 is not None:
            # Two encodings of one result are two representations, and a tag names one of them.
            suffix = "-json" if encoding is Encoding.JSON else ""
            headers["ETag"] = f'"{job.result_sha256}{suffix}"'
        if self._one_shot and request.method == "GET":
            content = await self._as_json(path) if encoding is Encoding.JSON else path
            return OneShotResponse(content, media_type, headers, lambda: self._expire(job))
        if "ETag" in headers and {headers["ETag"], "*"} & _tags(request):
            return Response(status_code=304, headers=headers)
        if encoding is Encoding.JSON:
            return Response(await self._as_json(path), media_type=media_type, headers=headers)
        _drop_unusable_range(request)
        return FileResponse(path, media_type=media_type, headers=headers)

    async def whole_file(self, job: Job) -> Path:
        """Where the result of `job` is, after a look at every byte of it. Raises as `respond` does."""
        if job.state in UNFINISHED:
            raise ResultNotReady(
                f"The segmentation {job.id} is {job.state} ({progress_of(job).percent} %); poll its progress until 100."
            )
        if job.state is not JobState.SUCCEEDED or job.result_file is None:
            reason = progress_of(job).error_text
            raise SegmentationUnsuccessful(f"The segmentation {job.id} {job.state}, so there is no result: {reason}")
        await self._mount.require()
        fault = await to_thread.run_sync(self._blobs.what_is_wrong_with_result, job.result_file, job.result_sha256)
        if fault is not None:
            failed = await self._database.run(
                stored_files.fail_result, [job.id], fault, retention_hours=self._retention_hours
            )
            if failed:  # of several that ask at one time, one is told so
                self._metrics.job_failed(job.model_id)
            logger.error("result not shown", extra={"job": str(job.id), "reason": fault})
            raise SegmentationUnsuccessful(f"The result of {job.id} {fault}; submit the volume again.")
        return self._blobs.result_path(job.result_file)

    async def _as_json(self, path: Path) -> bytes:
        return await to_thread.run_sync(
            lambda: transcode_model_output(path.read_bytes(), Encoding.JSON), limiter=self._transcoding
        )

    async def _expire(self, job: Job) -> None:
        await self._database.run(retention.expire_now, job.id)


def _tags(request: Request) -> set[str]:
    """What `If-None-Match` names, weak or not: a comparison for a cached copy is the weak one (RFC 9110, 13.1.2)."""
    values = ",".join(request.headers.getlist("if-none-match")).split(",")
    return {value.strip().removeprefix("W/") for value in values}


def _drop_unusable_range(request: Request) -> None:
    """Take a `Range` out of the request that is to be ignored (RFC 9110, 14.2): malformed, or not of a GET."""
    value = request.headers.get("range")
    if value is None:
        return
    match = _RANGES.fullmatch(value)
    bounds = [item.strip().split("-") for item in match[1].split(",")] if match else [["1", "0"]]
    backwards = any(first and last and int(first) > int(last) for first, last in bounds)
    if backwards or request.method != "GET":
        request.scope["headers"] = [(name, text) for name, text in request.scope["headers"] if name != b"range"]
