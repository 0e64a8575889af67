"""Who looks at whose scan: the viewer behind the console's sessions, and each opening of it in the audit.

The page is one request and its voxels are many, so the page is what is audited. It leaves a signed cookie for this
session and this job, and the data is given to who brings that: nobody reads voxels without an entry that says so.
"""

from collections.abc import Awaitable, Callable
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from services.api.console import cookies
from services.api.console.changes import Changes
from services.api.console.page import require
from services.api.console.secrets import BrowserSecrets
from services.api.console.viewer.viewer import PATIENT_HEADERS, Viewer
from services.core.accounts import Permission
from services.core.db import jobs
from services.core.db.session import AsyncDatabase

Endpoint = Callable[[Request], Awaitable[Response]]

COOKIE = "segint_opened"
NOT_OPENED = (
    "This scan was not opened in this session; open it on the page of its job, so that the audit knows who looked."
)


class Viewing:
    """The viewer's routes, for those who may see."""

    def __init__(self, viewer: Viewer, database: AsyncDatabase, changes: Changes, secrets: BrowserSecrets) -> None:
        self._viewer = viewer
        self._database = database
        self._changes = changes
        self._secrets = secrets

    def routes(self) -> list[Route]:
        """Every route of the viewer, guarded."""
        return [Route(route.path, self._guarded(route), methods=["GET"]) for route in self._viewer.routes()]

    def _guarded(self, route: Route) -> Endpoint:
        show: Endpoint = route.endpoint

        async def about_no_job(request: Request) -> Response:
            require(request, Permission.SEE)
            return await show(request)

        async def page(request: Request) -> Response:
            require(request, Permission.SEE)
            return await self._opened(request, show)

        async def data(request: Request) -> Response:
            require(request, Permission.SEE)
            job_id = _job_id(request)
            if job_id is not None and self._secrets.read(request.cookies.get(COOKIE)) != _opening(request, job_id):
                return JSONResponse({"error": NOT_OPENED}, 403, PATIENT_HEADERS)
            return await show(request)

        if route.path.endswith("/view"):
            return page
        return data if "/view/" in route.path else about_no_job

    async def _opened(self, request: Request, show: Endpoint) -> Response:
        """The page, once the audit has who opened it. Of a job that there is not, the page says so by itself."""
        job_id = _job_id(request)
        if job_id is None:
            return await show(request)
        if request.path_params["id"] != str(job_id):  # the cookie is for one spelling of the address
            return RedirectResponse(f"../{job_id}/view", 303)
        if await self._database.read(jobs.find, job_id) is not None:
            await self._changes.make(request, "job.viewed", f"job:{job_id}", lambda _: None)
        response = await show(request)
        path = f"{cookies.PATH}/jobs/{job_id}/view"
        cookies.put(response, request, COOKIE, self._secrets.signed(_opening(request, job_id)), path=path)
        return response


def _job_id(request: Request) -> UUID | None:
    try:
        return UUID(request.path_params["id"])
    except ValueError:
        return None


def _opening(request: Request, job_id: UUID) -> str:
    return f"{request.state.console_session}:{job_id}"
