"""The viewer's endpoints. They know nothing of sessions: whoever mounts them decides who may look.

Relative to where they are mounted: `jobs/{id}/view` is the page; below it lie its description and the voxels.
`viewer/{name}` are the page's own files.
"""

import logging
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import anyio
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from services.api.console.viewer.description import Files, describe
from services.api.console.viewer.excerpts import respond_with
from services.api.console.viewer.job_files import Excerpt, NothingToShow, open_masks, open_scan
from services.api.error_responses import status_of
from services.api.identifiers import segmentation_id
from services.api.mount import Mount
from services.core.blobs import Blobs
from services.core.catalogue import CatalogueEntry
from services.core.db import catalogue as catalogue_rows
from services.core.db import jobs as job_rows
from services.core.db.session import AsyncDatabase, Session
from services.core.errors import SegIntError, SegmentationUnknown, Unavailable
from services.core.jobs import Job
from services.core.wire.voxel_spans import Span

logger = logging.getLogger(__name__)

T = TypeVar("T")

FOLDER = Path(__file__).parent
ASSETS = FOLDER / "static"
"""Made by `make console-assets`."""

MOST_READS = 2
"""Files read through at one time, to check their digests: each keeps a core busy."""

_ASSET = re.compile(r"[a-z0-9-]+\.(?:js|css|txt)")

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",  # NiiVue carries its letters and its light as images in its own code
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Content-Security-Policy: nothing from any other host, and no code but the page's own files."""

PAGE_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PATIENT_HEADERS = {
    "Cache-Control": "private, no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of answers that are about a patient: no cache keeps them."""

Endpoint = Callable[[Request], Awaitable[Response]]


class Viewer:
    """Shows jobs of one deployment."""

    def __init__(self, database: AsyncDatabase, blobs: Blobs, mount: Mount, *, assets: Path = ASSETS) -> None:
        self._database = database
        self._blobs = blobs
        self._mount = mount
        self._assets = assets
        self._reading = anyio.CapacityLimiter(MOST_READS)

    def routes(self) -> list[Route]:
        """Every route; links between them are relative, so they may be mounted anywhere."""
        job = "/jobs/{id}/view"
        return [
            Route(job, self.page),
            Route(f"{job}/description", _in_words(self.description)),
            Route(f"{job}/channels/{{number:int}}", _in_words(self.channel)),
            Route(f"{job}/structures/{{number:int}}", _in_words(self.structure)),
            Route("/viewer/{name}", self.asset),
        ]

    async def page(self, request: Request) -> Response:
        """GET jobs/{id}/view: the same page for every job; it asks for the rest by itself."""
        name = "page.html" if (self._assets / "viewer.js").is_file() else "not-built.html"
        return FileResponse(FOLDER / name, media_type="text/html; charset=utf-8", headers=PAGE_HEADERS)

    async def asset(self, request: Request) -> Response:
        """GET viewer/{name}: the page's own files."""
        name = request.path_params["name"]
        path = self._assets / name
        if not _ASSET.fullmatch(name) or not path.is_file():
            return Response("There is no such file.", 404, media_type="text/plain")
        # Names stay the same from version to version, so a browser asks every time whether its copy is the newest.
        return FileResponse(path, headers={**PAGE_HEADERS, "Cache-Control": "no-cache"})

    async def description(self, request: Request) -> Response:
        """GET jobs/{id}/view/description: grids, structures, and what is missing, as JSON."""
        job, entry = await self._job(segmentation_id(request))
        remarks: list[str] = []

        async def there(read: Callable[[Blobs, Job], T]) -> T | None:
            try:
                return await self._read(read, job)
            except NothingToShow as error:
                remarks.append(error.details)
                return None

        await self._mount.require()
        scan, drawn = await there(open_scan), await there(open_masks)
        return JSONResponse(describe(job, entry, Files(scan, drawn, tuple(remarks))), headers=PATIENT_HEADERS)

    async def channel(self, request: Request) -> Response:
        """GET jobs/{id}/view/channels/{number}: gzip of one volume's voxels, int16, as the request carries them."""
        job, _ = await self._job(segmentation_id(request))
        await self._mount.require()
        scan = await self._read(open_scan, job)
        return await self._excerpt(scan.path, [volume.data for volume in scan.volumes], request)

    async def structure(self, request: Request) -> Response:
        """GET jobs/{id}/view/structures/{number}: gzip of one mask, bytes of 0 and 1, as the result carries it."""
        job, _ = await self._job(segmentation_id(request))
        await self._mount.require()
        drawn = await self._read(open_masks, job)
        return await self._excerpt(drawn.path, [mask.data for mask in drawn.masks], request)

    async def _job(self, job_id: UUID) -> tuple[Job, CatalogueEntry | None]:
        found = await self._database.read(_job_and_model, job_id)
        if found is None:
            raise SegmentationUnknown(f"There is no segmentation {job_id}.")
        return found

    async def _read(self, read: Callable[[Blobs, Job], T], job: Job) -> T:
        return await to_thread.run_sync(read, self._blobs, job, limiter=self._reading)

    async def _excerpt(self, path: Path, spans: list[Span], request: Request) -> Response:
        number = request.path_params["number"]
        if number >= len(spans):
            raise NothingToShow(f"This job has nothing of number {number}.")
        try:
            return await respond_with(Excerpt(path, spans[number]), PATIENT_HEADERS)
        except FileNotFoundError as error:
            raise NothingToShow("The file was deleted from the server's volume just now.") from error


def _job_and_model(session: Session, job_id: UUID) -> tuple[Job, CatalogueEntry | None] | None:
    job = job_rows.find(session, job_id)
    return None if job is None else (job, catalogue_rows.find_entry(session, job.model_id))


def _in_words(endpoint: Endpoint) -> Endpoint:
    """`endpoint`, its errors as JSON that the page shows: one sentence. The log has the job's identifier at most."""

    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except SegIntError as error:
            status = 404 if isinstance(error, NothingToShow | SegmentationUnknown) else status_of(error)
            headers = dict(PATIENT_HEADERS)
            if isinstance(error, Unavailable):
                headers["Retry-After"] = str(error.retry_after_seconds)
            if status >= 500:
                logger.warning("nothing shown", extra={"error": error.summary, "details": error.details})
            return JSONResponse({"error": error.details}, status, headers)

    return answered
