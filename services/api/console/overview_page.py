"""The first page: how the deployment is doing."""

from typing import Any

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette_admin.routing import route

from services.api.console import charts
from services.api.console.page import Page
from services.core.blobs import Blobs
from services.core.db.overview import Overview, overview
from services.core.db.session import AsyncDatabase
from services.core.errors import StorageAway


class OverviewPage(Page):
    """Queue, throughput, stages, failures, scores and room, as plots that the server draws."""

    menu_label = "Overview"
    icon = "fa-solid fa-gauge-high"
    path = "/"
    route_name = "index"

    def __init__(self, database: AsyncDatabase, blobs: Blobs) -> None:
        super().__init__()
        self._database = database
        self._blobs = blobs

    @route("", methods=["GET"])
    async def index(self, request: Request) -> Response:
        """Everything as it is now."""
        found: Overview = await self._database.read(overview)
        return self.render(
            request,
            "console/overview.html",
            overview=found,
            room=await self._room(),
            throughput=charts.columns(
                [(hour.at.strftime("%d %b %H:%M"), hour.succeeded, hour.failed) for hour in found.hours]
            ),
            stages=charts.bars(
                [(stage.name, stage.median_seconds, f"{stage.median_seconds:.2f} s") for stage in found.stages]
            ),
            failures=charts.bars([(failure.reason, failure.count, str(failure.count)) for failure in found.failures]),
            scores=charts.bars(
                [(score.model_id, score.mean, _mean_in_words(score.mean, score.count)) for score in found.scores]
            ),
        )

    async def _room(self) -> dict[str, Any]:
        try:
            room = await to_thread.run_sync(self._blobs.room)
        except StorageAway as error:
            return {"fault": error.details}
        if room is None:
            return {"fault": "The volume does not say how much room it has."}
        return {
            "free_gb": room.free_bytes / 1e9,
            "total_gb": room.total_bytes / 1e9,
            "used_percent": 100 * (1 - room.free_bytes / room.total_bytes),
        }


def _mean_in_words(mean: float, reports: int) -> str:
    return f"{mean:.1f} ({reports} {'report' if reports == 1 else 'reports'})"
