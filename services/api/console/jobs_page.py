"""Jobs as they are now, and one job with its time line; what operators do to them."""

import asyncio
import logging
from typing import Any
from uuid import UUID, uuid4

from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette_admin.routing import route

from services.api.console.changes import Changes
from services.api.console.fields import json_fields, text_field
from services.api.console.page import Page, account_of, as_json, require
from services.api.doorbell import Ringer
from services.api.jobs import document_of
from services.api.mount import Mount
from services.api.results import Results
from services.core.accounts import Permission
from services.core.blobs import Blobs
from services.core.db import cancellation, job_administration, waiting
from services.core.db import catalogue as catalogue_rows
from services.core.db import jobs as job_rows
from services.core.db.job_list import ListedJob, listed_jobs
from services.core.db.session import AsyncDatabase, Session
from services.core.errors import (
    InvalidParameter,
    ModelUnavailable,
    SegmentationFinished,
    SegmentationUnknown,
)
from services.core.jobs import FINISHED, UNFINISHED, Job, JobState, JobStatus, NewJob, Priority
from services.core.settings import Settings
from services.core.wire.segmentations import progress_of

logger = logging.getLogger(__name__)


class JobsPage(Page):
    """The live list and the page of one job."""

    menu_label = "Jobs"
    icon = "fa-solid fa-list-check"
    path = "/jobs"
    route_name = "jobs"

    def __init__(
        self,
        settings: Settings,
        database: AsyncDatabase,
        blobs: Blobs,
        mount: Mount,
        ringer: Ringer,
        results: Results,
        changes: Changes,
    ) -> None:
        super().__init__()
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._mount = mount
        self._ringer = ringer
        self._results = results
        self._changes = changes

    @route("", methods=["GET"])
    async def index(self, request: Request) -> Response:
        """The list, drawn and kept up to date by the page's script."""
        return self.render(request, "console/jobs.html")

    @route("/live", methods=["GET"], name="jobs-live")
    @as_json
    async def live(self, request: Request) -> dict[str, Any]:
        """What the list shows."""
        account_of(request)
        listed = await self._database.read(listed_jobs)
        return {
            "jobs": [_line(request, job) for job in listed.jobs],
            "running": listed.running,
            "queued": listed.queued,
            "more_queued": listed.more_queued,
        }

    @route("/{id:uuid}", methods=["GET"], name="job")
    async def one(self, request: Request) -> Response:
        """The page of one job."""
        status = await self._status(request)
        return self.render(
            request,
            "console/job.html",
            job=status.job,
            document=self._document(status),
            actions=_possible(status.job),
            missing_input=_missing_input(status.job),
        )

    @route("/{id:uuid}/live", methods=["GET"], name="job-live")
    @as_json
    async def one_live(self, request: Request) -> dict[str, Any]:
        """What the page of one job shows."""
        account_of(request)
        status = await self._status(request)
        possible, missing = _possible(status.job), _missing_input(status.job)
        return {**self._document(status), "possible": possible, "missing_input": missing}

    @route("/{id:uuid}/cancel", methods=["POST"], name="job-cancel")
    @as_json
    async def cancel(self, request: Request) -> dict[str, Any]:
        """Cancel a job that waits or runs."""
        account = require(request, Permission.JOBS)
        job_id = _job_id(request)
        hours = self._settings.result_retention_hours

        def work(session: Session) -> Job:
            job = cancellation.request_cancel(session, job_id, retention_hours=hours, actor=account.actor)
            if job is None:
                raise SegmentationUnknown(f"There is no segmentation {job_id}.")
            if job.state not in UNFINISHED | {JobState.CANCELLED}:
                raise SegmentationFinished(f"The segmentation {job_id} has {job.state} already.")
            return job

        job = await self._changes.run(work)
        logger.info("cancel asked for", extra={"job": str(job_id), "account": account.name})
        return {"state": job.state.value}

    @route("/{id:uuid}/priority", methods=["POST"], name="job-priority")
    @as_json
    async def priority(self, request: Request) -> dict[str, Any]:
        """Let a job that waits be claimed earlier or later."""
        account = require(request, Permission.JOBS)
        job_id = _job_id(request)
        wanted = text_field(await json_fields(request), "priority")
        try:
            priority = Priority[wanted.upper()]
        except KeyError as error:
            names = " or ".join(priority.name.lower() for priority in Priority)
            raise InvalidParameter(f"There is no priority «{wanted[:40]}»; choose {names}.") from error
        await self._changes.make(
            request,
            "job.priority",
            f"job:{job_id}",
            lambda session: job_administration.set_priority(session, job_id, priority, account.name),
            {"priority": priority.name.lower()},
        )
        return {"priority": priority.name.lower()}

    @route("/{id:uuid}/retry", methods=["POST"], name="job-retry")
    @as_json
    async def retry(self, request: Request) -> dict[str, Any]:
        """Make a new job from the input of one that has ended."""
        account = require(request, Permission.JOBS)
        earlier = _job_id(request)
        kept = await self._database.read(job_administration.kept_input, earlier)
        entry = await self._database.read(catalogue_rows.find_entry, kept.job.model_id)
        if entry is None or not entry.runnable:
            raise ModelUnavailable(f"The model «{kept.job.model_id}» is not enabled; enable it first.")
        await self._mount.require()
        new_id = uuid4()
        try:
            name = await to_thread.run_sync(self._blobs.same_input, kept.input_file, new_id)
        except FileNotFoundError as error:
            raise SegmentationFinished(
                f"The input of {earlier} is not on the volume any more; submit it again."
            ) from error
        new_job = NewJob(
            id=new_id,
            model_id=kept.job.model_id,
            input_file=name,
            input_bytes=kept.job.input_bytes,
            voxel_count=kept.voxel_count,
            client_version=kept.client_version,
            priority=kept.job.priority,
            remarks=kept.job.remarks,
            input_sha256=kept.job.input_sha256 or "",
            submitted_by=account.actor,
            token_id=kept.job.token_id,  # so that whoever sees the first sees the second
        )
        # Should this fail, the janitor finds a file that no job names.
        await self._changes.make(
            request,
            "job.retry",
            f"job:{earlier}",
            lambda session: job_administration.accept_again(session, new_job, earlier, account.name),
            {"new_job": str(new_id)},
        )
        self._ringer.ask()
        return {"id": str(new_id), "url": str(request.url_for("admin:job", id=new_id))}

    @route("/{id:uuid}/input", methods=["GET"], name="job-input")
    async def input(self, request: Request) -> Response:
        """The ModelInput as it was sent."""
        require(request, Permission.JOBS)
        job = (await self._status(request)).job
        if job.input_file is None:
            raise SegmentationFinished(f"The input of {job.id} is not kept any more.")
        await self._mount.require()
        path = self._blobs.input_path(job.input_file)
        if not await asyncio.to_thread(path.is_file):
            raise SegmentationFinished(f"The input of {job.id} is not on the volume any more.")
        await self._note_download(request, job, "job.download_input")
        return FileResponse(path, media_type="application/x-protobuf", filename=f"{job.id}-input.pb")

    @route("/{id:uuid}/result", methods=["GET"], name="job-result")
    async def result(self, request: Request) -> Response:
        """The ModelOutput, whole."""
        require(request, Permission.JOBS)
        job = (await self._status(request)).job
        path = await self._results.whole_file(job)
        await self._note_download(request, job, "job.download_result")
        return FileResponse(path, media_type="application/x-protobuf", filename=f"{job.id}-result.pb")

    async def _note_download(self, request: Request, job: Job, action: str) -> None:
        await self._changes.make(request, action, f"job:{job.id}", lambda _: None)

    async def _status(self, request: Request) -> JobStatus:
        def read(session: Session) -> JobStatus | None:
            job = job_rows.find(session, _job_id(request))
            return None if job is None else waiting.status_of(session, job)

        status = await self._database.read(read)
        if status is None:
            raise HTTPException(404, f"There is no segmentation {_job_id(request)}.")
        return status

    def _document(self, status: JobStatus) -> dict[str, Any]:
        return document_of(status, self._settings.attempt_limit)


def _possible(job: Job) -> dict[str, bool]:
    """What can be done to the job as it is, by whoever may."""
    return {
        "cancel": job.state in UNFINISHED and not job.cancel_requested,
        "priority": job.state is JobState.QUEUED,
        "retry": job.state in FINISHED and job.input_file is not None,
        "input": job.input_file is not None,
        "result": job.state is JobState.SUCCEEDED and job.result_file is not None,
    }


def _missing_input(job: Job) -> str:
    """Why there is no scan to look at, to download and to try again with; empty where there is one."""
    if job.input_file is not None or job.state in UNFINISHED:
        return ""
    if job.state is JobState.EXPIRED:
        return "The scan is not kept any more, because the job has expired."
    return (
        f"The scan was deleted when the job {job.state}, so it can be neither shown, downloaded nor tried again; "
        "with SEGINT_KEEP_INPUTS=always scans of later jobs are kept until they expire."
    )


def _line(request: Request, listed: ListedJob) -> dict[str, Any]:
    job = listed.job
    return {
        "id": str(job.id),
        "url": str(request.url_for("admin:job", id=job.id).path),
        "model": job.model_id,
        "state": job.state.value,
        "cancelling": job.cancel_requested and job.state is JobState.RUNNING,
        "percent": progress_of(job).percent,
        "priority": job.priority.name.lower(),
        "age_seconds": round(listed.age_seconds, 1),
        "attempt": job.attempt,
        "worker": job.worker,
        "queue_position": listed.queue_position,
        "remaining_seconds": listed.remaining_seconds,
        "error": job.error_text,
    }


def _job_id(request: Request) -> UUID:
    identifier: UUID = request.path_params["id"]
    return identifier
