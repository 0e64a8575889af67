"""What the wire has no words for: a job's place in the queue, its remaining time, its time line. JSON, and a stream."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from services.api.auth import Authenticator
from services.api.callers import Caller, caller_of
from services.api.identifiers import segmentation_id
from services.core.db import jobs as job_rows
from services.core.db import waiting
from services.core.db.session import AsyncDatabase, Session
from services.core.errors import DatabaseUnavailable, NotAuthenticated, SegmentationUnknown, TooManyStreams
from services.core.jobs import UNFINISHED, JobErrorCode, JobState, JobStatus, RanWith
from services.core.settings import Settings
from services.core.wire.segmentations import progress_of

STREAM_POLL_SECONDS = 1.0
"""Workers write progress at most once a second; asking more often would show nothing new."""
MOST_STREAMS = 64
"""Each asks the database once a second; more people than this do not watch one research server."""

SEND_LIMIT_SECONDS = 30.0
"""A watcher that reads nothing for so long loses its stream."""


class Jobs:
    """The routes of the status page."""

    def __init__(self, settings: Settings, database: AsyncDatabase, authenticator: Authenticator) -> None:
        self._database = database
        self._authenticator = authenticator
        self._attempt_limit = settings.attempt_limit
        self._streams = 0

    async def status(self, request: Request) -> Response:
        """GET /api/segint/v1/jobs/{id}: the job with its surroundings, expired ones included."""
        document = await self._document(segmentation_id(request), caller_of(request))
        return JSONResponse(document, headers={"Cache-Control": "no-store"})

    async def stream(self, request: Request) -> Response:
        """GET /api/segint/v1/jobs/{id}/events: the same as server-sent events, one whenever it changes, until its end.

        While the database is away nothing is sent but keep-alive comments; the stream goes on once it is back. It ends
        when its token is revoked or expires.
        """
        if self._streams >= MOST_STREAMS:
            raise TooManyStreams(f"{MOST_STREAMS} event streams are open already; poll the job instead.")
        first = await self._document(segmentation_id(request), caller_of(request))
        return EventSourceResponse(
            self._changes(request, first),
            headers={"Cache-Control": "no-store"},
            send_timeout=SEND_LIMIT_SECONDS,
        )

    async def _changes(self, request: Request, document: dict[str, Any]) -> AsyncIterator[ServerSentEvent]:
        self._streams += 1
        try:
            sent = None
            while True:
                if document != sent:
                    yield ServerSentEvent(data=json.dumps(document), event="job")
                    sent = document
                if document["state"] not in UNFINISHED:
                    return
                await asyncio.sleep(STREAM_POLL_SECONDS)
                try:
                    caller = await self._authenticator.caller(request)
                    document = await self._document(segmentation_id(request), caller)
                except DatabaseUnavailable:
                    continue
                except NotAuthenticated:
                    return
        finally:
            self._streams -= 1

    async def _document(self, job_id: UUID, caller: Caller) -> dict[str, Any]:
        status = await self._database.read(_status, job_id)
        if status is None or not caller.sees(status.job):
            raise SegmentationUnknown(f"There is no segmentation {job_id}; use the identifier that the server gave.")
        return document_of(status, self._attempt_limit)


def _status(session: Session, job_id: UUID) -> JobStatus | None:
    job = job_rows.find(session, job_id)
    return None if job is None else waiting.status_of(session, job)


def document_of(status: JobStatus, attempt_limit: int) -> dict[str, Any]:
    """`status` as JSON can hold it: times as RFC 3339, sizes in bytes, durations in seconds."""
    job = status.job
    progress = progress_of(job)
    failed = job.state is JobState.FAILED or job.error_code is not JobErrorCode.NONE
    return {
        "id": str(job.id),
        "model": job.model_id,
        "state": job.state.value,
        "priority": job.priority.name.lower(),
        "percent": progress.percent,
        "attempt": job.attempt,
        "attempt_limit": attempt_limit,
        "cancel_requested": job.cancel_requested,
        "queue_position": status.queue_position,
        "remaining_seconds": status.remaining_seconds,
        "obstacle": status.obstacle,
        "worker": job.worker,
        "created_at": _time(job.created_at),
        "claimed_at": _time(job.claimed_at),
        "finished_at": _time(job.finished_at),
        "expires_at": _time(job.expires_at),
        "error": {"code": job.error_code.name, "text": job.error_text} if failed else None,
        "remarks": job.remarks,
        "submitted_by": job.submitted_by,
        "ran_with": None if status.ran_with is None else _ran_with(status.ran_with),
        "stage_seconds": dict(job.stage_seconds),
        "input": {"bytes": job.input_bytes, "sha256": job.input_sha256},
        "result": None if job.result_bytes is None else {"bytes": job.result_bytes, "sha256": job.result_sha256},
        "events": [
            {
                "at": _time(event.at),
                "kind": event.kind.value,
                "attempt": event.attempt,
                "worker": event.worker,
                "details": event.details,
            }
            for event in status.events
        ],
    }


def _ran_with(ran_with: RanWith) -> dict[str, Any]:
    return {
        "runtime": ran_with.runtime,
        "model_sha256": ran_with.model_sha256,
        "module_sha256": ran_with.module_sha256,
        "options": dict(ran_with.options),
        "software_version": ran_with.software_version,
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="milliseconds")
