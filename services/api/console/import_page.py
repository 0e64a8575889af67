"""Upload of a serialized ModelFamily: first what it would create or change, then the import."""

from typing import Any

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette_admin.routing import route

from services.api.console.changes import Changes
from services.api.console.page import Page, as_json, require
from services.api.uploads import UploadLimits, announced_bytes, read_whole
from services.core.accounts import Permission
from services.core.catalogue import ModelFamily
from services.core.db import catalogue as catalogue_rows
from services.core.db import family_views
from services.core.db.catalogue_changes import FamilyChanges, changes_of, refuse_changes_of_used_versions
from services.core.db.session import AsyncDatabase, Session
from services.core.errors import CatalogueConflict, InvalidModel
from services.core.model_library import ModelLibrary
from services.core.settings import Settings
from services.core.wire.catalogue import decode_family

MOST_BYTES = 4 * 1024**2
"""Far above any description of models, which holds no weights."""

MOST_COLOR = 255


class ImportPage(Page):
    """Preview and import."""

    permission = Permission.MODELS
    menu_label = "Import family"
    icon = "fa-solid fa-file-import"
    path = "/import"
    route_name = "model-import"

    def __init__(self, settings: Settings, database: AsyncDatabase, library: ModelLibrary, changes: Changes) -> None:
        super().__init__()
        self._database = database
        self._library = library
        self._changes = changes
        self._limits = UploadLimits(MOST_BYTES, settings.upload_idle_seconds, settings.upload_limit_seconds)

    @route("", methods=["GET"])
    async def index(self, request: Request) -> Response:
        """The page that takes the file."""
        return self.render(request, "console/import.html")

    @route("/preview", methods=["POST"], name="import-preview")
    @as_json
    async def preview(self, request: Request) -> dict[str, Any]:
        """What an import of the body would do. Changes nothing."""
        require(request, Permission.MODELS)
        family = await self._body(request)
        changes = await self._database.run(changes_of, family)
        return {
            "family": family.canonical_name,
            "created": changes.created,
            "changed": list(changes.changed),
            "versions": [
                {"model_id": line.model_id, "what": line.what, "details": list(line.details)}
                for line in changes.versions
            ],
            "kept": list(changes.kept),
            "conflict": changes.conflict,
            "fingerprint": changes.fingerprint,
        }

    @route("/run", methods=["POST"], name="import-run")
    @as_json
    async def run(self, request: Request) -> dict[str, Any]:
        """Import the body, if the catalogue is still what the preview compared it with."""
        require(request, Permission.MODELS)
        family = await self._body(request)
        fingerprint = request.query_params.get("fingerprint", "")

        def work(session: Session) -> int:
            found: FamilyChanges = changes_of(session, family, lock=True)
            if found.fingerprint != fingerprint:
                raise CatalogueConflict(
                    f"Somebody else changed «{family.canonical_name}» since the preview. Nothing was imported: look at "
                    "the preview again."
                )
            refuse_changes_of_used_versions(found)
            catalogue_rows.store_family(session, family)
            return family_views.number_of(session, family.canonical_name)

        number = await self._changes.make(
            request,
            "family.imported",
            f"family:{family.canonical_name}",
            work,
            {"versions": len(family.versions)},
        )
        await to_thread.run_sync(self._library.publish, family.canonical_name)
        return {"url": str(request.url_for("admin:family", id=number))}

    async def _body(self, request: Request) -> ModelFamily:
        announced_bytes(request, MOST_BYTES)
        family = decode_family(await read_whole(request, self._limits))
        for version in family.versions:
            for structure in version.structures:
                color = structure.color
                if color is not None and max(color.red, color.green, color.blue) > MOST_COLOR:
                    raise InvalidModel(
                        f"The colour of «{structure.name}» in «{version.model_id}» is {color.red}, {color.green}, "
                        f"{color.blue}; each part is 0 to {MOST_COLOR}. Correct it in the file."
                    )
        return family
