"""The viewer alone, mounted somewhere, open to everybody: what `uvicorn --factory` calls in tests."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount as Mounted
from starlette.routing import Route

from services.api.console.viewer.viewer import ASSETS, Viewer
from services.api.mount import Mount
from services.core.blobs import Blobs
from services.core.db.session import AsyncDatabase
from services.core.settings import settings_or_exit

ASSETS_VARIABLE = "VIEWER_ASSETS"
PREFIX = "/some/where"


def create_app() -> Starlette:
    """The viewer of the deployment that the environment tells of."""
    settings = settings_or_exit()
    database, blobs = AsyncDatabase(settings.database_url), Blobs(settings.volume_dir)
    assets = Path(os.environ.get(ASSETS_VARIABLE, ASSETS))
    viewer = Viewer(database, blobs, Mount(database, blobs), assets=assets)

    async def alive(_: Request) -> Response:
        return Response()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await database.close()

    routes = [Route("/healthz", alive), Route("/readyz", alive), Mounted(PREFIX, routes=viewer.routes())]
    return Starlette(routes=routes, lifespan=lifespan)
