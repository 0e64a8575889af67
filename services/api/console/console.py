"""Puts the console together and mounts it at /admin; or says there why there is none."""

import logging

from sqlalchemy.exc import DBAPIError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette_admin.views import DropDown

from services.api.console.admin import ConsoleAdmin
from services.api.console.changes import Changes
from services.api.console.family_inputs_page import FamilyInputsPage
from services.api.console.gate import Gate
from services.api.console.import_page import ImportPage
from services.api.console.jobs_page import JobsPage
from services.api.console.login import Login
from services.api.console.models_page import ModelsPage
from services.api.console.new_model_page import NewModelPage
from services.api.console.overview_page import OverviewPage
from services.api.console.password_page import PasswordPage
from services.api.console.secrets import BrowserSecrets
from services.api.console.sessions import Sessions
from services.api.console.tables.accounts import AccountTable, AuditTable
from services.api.console.tables.catalogue import BodyPartTable, FamilyTable, InputChannelTable, VersionTable
from services.api.console.tables.jobs import JobTable
from services.api.console.tables.reports import FeedbackTable, StructureCommentTable, TelemetryTable
from services.api.console.tables.structures import StructureTable
from services.api.console.tables.tokens import TokenTable
from services.api.console.viewer.viewer import Viewer
from services.api.console.viewing import Viewing
from services.api.doorbell import Ringer
from services.api.logins import Logins
from services.api.mount import Mount
from services.api.results import Results
from services.core.blobs import Blobs
from services.core.db import tables
from services.core.db.console_sessions import SessionLimits
from services.core.db.session import AsyncDatabase, Database
from services.core.errors import SegIntError
from services.core.model_library import ModelLibrary
from services.core.networks import networks
from services.core.settings import Settings

logger = logging.getLogger(__name__)

OFF = (
    "This server has no console: set SEGINT_SESSION_SECRET to at least 32 random characters, such as the output of "
    "`openssl rand -hex 32`, and start it again.\n"
)


class Console:
    """The console of one API process. It holds connections of its own; `close` gives them back."""

    def __init__(
        self,
        settings: Settings,
        secret: str,
        *,
        database: AsyncDatabase,
        blobs: Blobs,
        mount: Mount,
        ringer: Ringer,
        results: Results,
    ) -> None:
        # The library tells of every step at length, at DEBUG even of what was typed into forms.
        logging.getLogger("starlette_admin").setLevel(logging.ERROR)
        self._own = Database(settings.database_url)
        self._library = ModelLibrary(database_url=settings.database_url, volume_dir=settings.volume_dir)
        secrets = BrowserSecrets(secret)
        limits = SessionLimits(settings.session_idle_minutes * 60, settings.session_hours * 3600)
        sessions = Sessions(database, secrets, limits)
        changes = Changes(self._own)
        proxies = networks(settings.trusted_proxies)
        self._logins = Logins(settings)
        self._admin = ConsoleAdmin(
            database.engine,
            secret=secret,
            login=Login(self._logins, self._own, sessions, proxies),
            gate=Middleware(Gate, sessions=sessions, secrets=secrets, proxies=proxies),
            index=OverviewPage(database, blobs),
        )
        self._admin.add_view(JobsPage(settings, database, blobs, mount, ringer, results, changes))
        self._admin.routes[:0] = Viewing(Viewer(database, blobs, mount), database, changes, secrets).routes()
        library, own = self._library, self._own
        self._admin.add_view(ModelsPage(database, library, changes, ringer))
        self._admin.add_view(FamilyInputsPage(database, library, changes))
        self._admin.add_view(NewModelPage(settings, database, blobs, mount, changes))
        self._admin.add_view(ImportPage(settings, database, library, changes))
        self._admin.add_view(
            DropDown(
                "Reports",
                icon="fa-solid fa-comments",
                views=[
                    FeedbackTable(tables.FeedbackRow),
                    StructureCommentTable(tables.StructureCommentRow),
                    TelemetryTable(tables.TelemetryRow),
                    JobTable(tables.SegmentationJobRow),
                ],
            )
        )
        self._admin.add_view(
            DropDown(
                "Catalogue",
                icon="fa-solid fa-table",
                views=[
                    FamilyTable(tables.ModelFamilyRow, library),
                    VersionTable(tables.ModelVersionRow, library),
                    StructureTable(tables.StructureRow, library),
                    InputChannelTable(tables.InputChannelRow, library),
                    BodyPartTable(tables.BodyPartRow, library),
                ],
            )
        )
        self._admin.add_view(
            DropDown(
                "Administration",
                icon="fa-solid fa-user-shield",
                views=[
                    AccountTable(tables.AccountRow, own),
                    TokenTable(tables.ApiTokenRow, own),
                    AuditTable(tables.AuditEntryRow),
                ],
            )
        )
        self._admin.add_view(PasswordPage(self._logins, sessions, proxies))

    def mount_to(self, app: Starlette) -> None:
        """Serve it below /admin."""
        app.router.routes.append(Route("/admin", _to_first_page))
        self._admin.mount_to(app)
        self._admin.app.add_exception_handler(SegIntError, self._admin.own_error)
        self._admin.app.add_exception_handler(DBAPIError, self._admin.database_error)

    def close(self) -> None:
        """Give the connections back."""
        self._own.close()
        self._library.close()
        self._logins.close()


def make_console(
    settings: Settings, database: AsyncDatabase, blobs: Blobs, mount: Mount, ringer: Ringer, results: Results
) -> Console | None:
    """The console of these settings; None where they hold no secret for its sessions."""
    if settings.session_secret is None:
        return None
    return Console(
        settings,
        settings.session_secret.get_secret_value(),
        database=database,
        blobs=blobs,
        mount=mount,
        ringer=ringer,
        results=results,
    )


def close_console(console: Console | None) -> None:
    """Close the console, where there is one."""
    if console is not None:
        console.close()


def mount_console(app: Starlette, console: Console | None) -> None:
    """Serve the console below /admin; where there is none, answer there with the reason, and log it."""
    if console is not None:
        console.mount_to(app)
        return
    logger.warning("no console", extra={"reason": OFF.strip()})

    async def off(_: Request) -> Response:
        return PlainTextResponse(OFF, 404)

    app.router.routes += [Route("/admin", off), Route("/admin/{path:path}", off)]


async def _to_first_page(request: Request) -> Response:
    return RedirectResponse(str(request.url_for("admin:index")), 307)
