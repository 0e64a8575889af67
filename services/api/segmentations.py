"""A segmentation's four routes: submit, progress, cancel, result."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import anyio
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from services.api.admission import check_for_model, check_volumes
from services.api.callers import Caller, caller_of
from services.api.capacity import Capacity
from services.api.doorbell import Ringer
from services.api.identifiers import segmentation_id
from services.api.negotiation import answer, require_protobuf, wanted_encoding
from services.api.results import Results
from services.api.uploads import UploadLimits, announced_bytes, stream_to_file
from services.core.blobs import Blobs, mapped
from services.core.catalogue import CatalogueEntry
from services.core.db import cancellation
from services.core.db import catalogue as catalogue_rows
from services.core.db import jobs as job_rows
from services.core.db.session import AsyncDatabase
from services.core.errors import (
    DatabaseUnavailable,
    InvalidParameter,
    ModelUnavailable,
    SegmentationFinished,
    SegmentationUnknown,
)
from services.core.jobs import Job, JobState, NewJob, Priority
from services.core.pending_file import PendingFile
from services.core.settings import Settings
from services.core.wire.model_input import ModelInput, decode_model_input
from services.core.wire.segmentations import SegmentationTask, encode_progress, encode_task, progress_of

logger = logging.getLogger(__name__)

PRIORITY_HEADER = "SegInt-Priority"
"""Not part of the wire that Velocity speaks; `segint segment --priority batch` sends it."""


class Segmentations:
    """The routes of a segmentation."""

    def __init__(
        self,
        settings: Settings,
        database: AsyncDatabase,
        blobs: Blobs,
        ringer: Ringer,
        capacity: Capacity,
        results: Results,
    ) -> None:
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._ringer = ringer
        self._capacity = capacity
        self._results = results
        self._limits = UploadLimits(
            settings.max_body_bytes, settings.upload_idle_seconds, settings.upload_limit_seconds
        )

    async def submit(self, request: Request) -> Response:
        """POST /api/v2/Model/{model}/segmentation ← ModelInput → SegmentationTask.

        The order matters: the bytes are on the disk before the row names them, the row is committed before anyone
        is told, and the doorbell comes last, because without it the job only waits for the janitor.
        """
        require_protobuf(request)
        announced = announced_bytes(request, self._limits.most_bytes)
        priority = _priority(request)
        async with self._capacity.upload(announced) as upload:
            job_id = uuid4()
            async with _opened(self._blobs.new_input(job_id)) as pending:
                await stream_to_file(request, pending, self._limits, upload.wrote)
                model_input = await to_thread.run_sync(_read, pending.partial)
                check_volumes(model_input, self._settings.max_volume_voxels)
                entry = await self._runnable_entry(request.path_params["model"])
                remarks = check_for_model(model_input, entry, self._settings.constraint_policy)
                await to_thread.run_sync(pending.commit)
                job = await self._accept(job_id, pending, model_input, entry, priority, remarks, caller_of(request))
        self._ringer.ask()
        logger.info("segmentation accepted", extra={"job": str(job.id), "model": job.model_id})
        task = SegmentationTask(job.id, job.created_at)
        return answer(request, encode_task(task, wanted_encoding(request)))

    async def progress(self, request: Request) -> Response:
        """GET /api/v2/Model/{model}/segmentation/{id} → SegmentationProgress."""
        job = await self._job(request)
        return answer(request, encode_progress(progress_of(job), wanted_encoding(request)))

    async def cancel(self, request: Request) -> Response:
        """DELETE /api/v2/Model/{model}/segmentation/{id} → SegmentationProgress.

        200 when it is cancelled; 202 when a worker runs it, which stops within a heartbeat.
        """
        found = await self._job(request)
        job = await self._database.run(
            cancellation.request_cancel,
            found.id,
            retention_hours=self._settings.result_retention_hours,
            actor=caller_of(request).actor,
        )
        if job is None or job.state in (JobState.SUCCEEDED, JobState.FAILED, JobState.EXPIRED):
            state = JobState.EXPIRED if job is None else job.state
            raise SegmentationFinished(f"The segmentation {found.id} has {state} already; there is nothing to cancel.")
        logger.info("cancel asked for", extra={"job": str(job.id), "state": job.state.value})
        status = 200 if job.state is JobState.CANCELLED else 202
        return answer(request, encode_progress(progress_of(job), wanted_encoding(request)), status)

    async def result(self, request: Request) -> Response:
        """GET /api/v2/Model/{model}/segmentation/{id}/result → ModelOutput."""
        return await self._results.respond(request, await self._job(request))

    async def _accept(
        self,
        job_id: UUID,
        pending: PendingFile,
        model_input: ModelInput,
        entry: CatalogueEntry,
        priority: Priority,
        remarks: str,
        caller: Caller,
    ) -> Job:
        job = NewJob(
            id=job_id,
            model_id=entry.version.model_id,
            input_file=pending.target.name,
            input_bytes=pending.size_bytes,
            voxel_count=sum(volume.voxel_count for volume in model_input.channels),
            client_version=model_input.client_version,
            priority=priority,
            remarks=remarks,
            input_sha256=pending.sha256,
            submitted_by=caller.actor,
            token_id=caller.token_id,
        )
        try:
            return await self._database.run(job_rows.accept, job)
        except DatabaseUnavailable:
            # The commit whose reply was lost may have happened, or may yet. If nobody can tell now, the file stays
            # for the janitor to judge: an unreferenced file is waste, a job without its input is a loss.
            known = await self._database.run(job_rows.find, job.id)
            if known is None:
                raise
            return known
        except Exception:
            await to_thread.run_sync(self._blobs.delete_input, job.input_file)
            raise

    async def _runnable_entry(self, model_id: str) -> CatalogueEntry:
        entry = await self._database.read(catalogue_rows.find_entry, model_id)
        if entry is None or not entry.runnable:
            why = "does not exist" if entry is None else "is not available"
            if entry is not None and entry.attachment is None:
                why = "has nothing attached that could run it"
            raise ModelUnavailable(
                f"The model «{model_id}» {why}; GET /api/v2/Model/ lists those that can be used (by ModelVersion.ID)."
            )
        return entry

    async def _job(self, request: Request) -> Job:
        job_id, model_id = segmentation_id(request), request.path_params["model"]
        job = await self._database.read(job_rows.find, job_id)
        if job is None or job.model_id != model_id or not caller_of(request).sees(job):
            raise SegmentationUnknown(
                f"The model «{model_id}» has no segmentation {job_id}; use the identifiers of the request it came from."
            )
        if job.state is JobState.EXPIRED:
            raise SegmentationUnknown(f"The segmentation {job_id} has expired; submit the volume again.")
        return job


@asynccontextmanager
async def _opened(pending: PendingFile) -> AsyncIterator[PendingFile]:
    """`pending` as a context whose file is opened and closed in a thread: a volume may be slow at either."""
    await to_thread.run_sync(pending.__enter__)
    try:
        yield pending
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(pending.__exit__, None, None, None)


def _read(path: Path) -> ModelInput:
    return decode_model_input(mapped(path))


def _priority(request: Request) -> Priority:
    value = request.headers.get(PRIORITY_HEADER, Priority.INTERACTIVE.name)
    try:
        return Priority[value.strip().upper()]
    except KeyError as error:
        names = " or ".join(priority.name.lower() for priority in Priority)
        raise InvalidParameter(f"{PRIORITY_HEADER} is «{value}»; send {names}, or leave it out.") from error
