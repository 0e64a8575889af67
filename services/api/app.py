"""The composition root of the API: the only place that reads settings and puts the parts together."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from prometheus_client import disable_created_metrics
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.api.auth import Authenticator
from services.api.callers import ANY, CALLER, READING, REPORTING, SEGMENTING, Scopes
from services.api.capacity import Capacity
from services.api.catalogue import Catalogue
from services.api.console.console import close_console, make_console, mount_console
from services.api.doorbell import Ringer
from services.api.error_responses import HANDLERS
from services.api.feedback import Feedback
from services.api.health import Health
from services.api.janitor import Janitor
from services.api.jobs import Jobs
from services.api.metrics import MeasureRequests, Metrics
from services.api.metrics_page import MetricsPage
from services.api.mount import Mount
from services.api.results import Results
from services.api.segmentations import Segmentations
from services.api.status import Status
from services.api.uploads import DrainRefusedBodies
from services.core import logs
from services.core.blobs import Blobs
from services.core.db.session import AsyncDatabase
from services.core.queue import Doorbell
from services.core.settings import Settings, settings_or_exit


class ModelIdentifier(Convertor[str]):
    """Any text at all, an encoded slash or line break included."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """As it is."""
        return value

    def to_string(self, value: str) -> str:
        """As it is."""
        return value


register_url_convertor("model_id", ModelIdentifier())

Endpoint = Callable[[Request], Awaitable[Response]]


def create_app_from_environment() -> Starlette:
    """What `uvicorn --factory` calls."""
    settings = settings_or_exit()
    logs.configure(settings.log_level)
    return create_app(settings)


def create_app(settings: Settings) -> Starlette:
    """The API of one deployment."""
    # Half of all series, and `process_start_time_seconds` tells as much.
    disable_created_metrics()  # type: ignore[no-untyped-call] # untyped there
    blobs = Blobs(settings.volume_dir)
    database = AsyncDatabase(settings.database_url)
    mount = Mount(database, blobs)
    doorbell = Doorbell(settings.redis_url, settings.redis_namespace)
    ringer = Ringer(doorbell)
    metrics = Metrics()
    janitor = Janitor(settings, database, blobs, mount, doorbell, metrics)
    authenticator = Authenticator(settings, database)

    status = Status(settings)
    catalogue = Catalogue(database)
    capacity = Capacity(settings, database, blobs, mount)
    results = Results(settings, database, blobs, mount, metrics)
    segmentations = Segmentations(settings, database, blobs, ringer, capacity, results)
    jobs = Jobs(settings, database, authenticator)
    feedback = Feedback(database, settings)
    health = Health(database, blobs, mount, doorbell)
    console = make_console(settings, database, blobs, mount, ringer, results)

    def route(path: str, scopes: Scopes | None = None, **endpoints: Endpoint) -> list[Route]:
        """Both spellings of a path, with and without the trailing slash, answer directly; one endpoint per method.

        A caller needs one of the scopes; without any named, the route is open to everybody.
        """

        label = path.replace(":model_id", "")

        async def guarded(request: Request) -> Response:
            request.scope["segint.route"] = label
            if scopes is not None:
                caller = request.scope[CALLER] = await authenticator.caller(request)
                caller.require(scopes if request.method != "DELETE" else SEGMENTING)
            method = "GET" if request.method == "HEAD" else request.method
            return await endpoints[method](request)

        return [Route(spelling, guarded, methods=list(endpoints)) for spelling in (path, f"{path}/")]

    # A model's identifier may hold an encoded slash, so it takes all that the rest of the route leaves.
    segmentation = "/api/v2/Model/{model:model_id}/segmentation"
    job = "/api/segint/v1/jobs/{id}"
    routes = [
        *route("/ping", GET=status.ping),
        *route("/api/ping", ANY, GET=status.ping),
        *route("/api/v2/Credits", ANY, GET=status.credits),
        *route("/api/v2/VendorStatus", ANY, GET=status.vendor_status),
        *route("/api/v2/Model", READING, GET=catalogue.models),
        *route(segmentation, SEGMENTING, POST=segmentations.submit),
        *route(segmentation + "/{id}/result", READING, GET=segmentations.result),
        *route(segmentation + "/{id}", READING, GET=segmentations.progress, DELETE=segmentations.cancel),
        *route("/api/v2/Feedback/segmentation", REPORTING, POST=feedback.feedback),
        *route("/api/v2/Telemetry/segmentation", REPORTING, POST=feedback.telemetry),
        *route(job, READING, GET=jobs.status),
        *route(job + "/events", READING, GET=jobs.stream),
        *route("/healthz", GET=health.alive),
        *route("/readyz", GET=health.ready),
        *route("/metrics", GET=MetricsPage(metrics, database, blobs, doorbell).show),
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        # What start-up made stays. Looked through again at every full collection, it stopped all requests for 0.1 s.
        gc.collect()
        gc.freeze()
        tasks = [asyncio.create_task(ringer.run()), asyncio.create_task(janitor.run())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
            close_console(console)
            await database.close()
            doorbell.close()

    app = Starlette(
        routes=routes,
        middleware=[Middleware(MeasureRequests, metrics=metrics), Middleware(DrainRefusedBodies)],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    mount_console(app, console)
    app.state.settings = settings
    return app
