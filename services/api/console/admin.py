"""starlette-admin with the console's own gate in place of its cookie checks, and pages that load nothing foreign."""

from typing import Any

from sqlalchemy.exc import DataError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette_admin.contrib.sqla import Admin
from starlette_admin.views import CustomView

from services.api.console.login import Login
from services.api.console.templates import STATIC, TEMPLATES, loaders
from services.api.error_responses import status_of
from services.core.errors import SegIntError

TITLE = "SegInt"


class ConsoleAdmin(Admin):
    """One console.

    Args:
        engine: of the API's own pool; the tables are read and edited through it.
        secret: signs messages that outlive one page.
        gate: what every request passes first.
    """

    def __init__(self, engine: AsyncEngine, *, secret: str, login: Login, gate: Middleware, index: CustomView) -> None:
        super().__init__(
            async_sessionmaker(engine, expire_on_commit=False),
            title=TITLE,
            base_url="/admin",
            route_name="admin",
            templates_dir=str(TEMPLATES),
            static_dir=str(STATIC),
            additional_loaders=loaders(),
            auth_provider=login,
            secret_key=secret,
            index_view=index,
        )
        self.middlewares.insert(0, gate)

    def _init_csrf(self) -> None:
        """Nothing: the gate asks for a token that belongs to the session, before any endpoint is reached."""

    async def own_error(self, request: Request, error: Exception) -> Response:
        """An error of SegInt's own as a page of the console: one sentence that says what is wrong and what to do."""
        if not isinstance(error, SegIntError):
            raise error
        return await self._page_of(request, status_of(error), error.details)

    async def database_error(self, request: Request, error: Exception) -> Response:
        """What PostgreSQL refused of a search or filter; that it is away, as everywhere else."""
        if isinstance(error, (OperationalError, InterfaceError)):
            return await self._page_of(request, 503, "PostgreSQL cannot be used right now; try again.")
        if isinstance(error, DataError):
            return await self._page_of(request, 400, "The search, filter or value cannot be used as it is; change it.")
        raise error

    async def _page_of(self, request: Request, status: int, sentence: str) -> Response:
        answer: Any = await self._render_error(request, HTTPException(status, sentence))
        if not isinstance(answer, Response):
            raise TypeError("starlette-admin's error page is no response")
        return answer
