"""A new model in one form, and the upload of its files. What it saves is a draft, which no client sees."""

from typing import Any

import anyio
from anyio import to_thread
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette_admin.routing import route

from services.api.console.changes import Changes
from services.api.console.colors import hex_of
from services.api.console.family_inputs_page import choices
from services.api.console.fields import json_fields, text_field
from services.api.console.framework_form import framework_fields
from services.api.console.model_files import check_beginning, check_module, label_of
from services.api.console.model_form import read_draft
from services.api.console.page import Page, as_json, require
from services.api.mount import Mount
from services.api.uploads import UploadLimits, announced_bytes, stream_to_file
from services.core.accounts import Permission
from services.core.attachment_details import attachment_details
from services.core.audit import Details
from services.core.blobs import Blobs
from services.core.catalogue import RuntimeName, StoredFile
from services.core.db import catalogue as catalogue_rows
from services.core.db import drafts
from services.core.db.session import AsyncDatabase, Session
from services.core.errors import DatabaseUnavailable, InvalidModel, ModelUnavailable, StorageFull
from services.core.model_options import CALLS, Inference, ModelOptions, Postprocessing, Preprocessing
from services.core.options_text import shown_options
from services.core.settings import Settings
from services.core.wire.enumerations import FRAMEWORK_STATUSES, STRUCTURE_TYPES

SECTIONS: dict[str, tuple[type[BaseModel], set[str]]] = {
    "": (ModelOptions, {"preprocessing", "inference", "postprocessing"}),
    "preprocessing": (Preprocessing, set()),
    "inference": (Inference, set()),
    "postprocessing": (Postprocessing, set()),
}


class NewModelPage(Page):
    """The form, its draft, and its uploads."""

    permission = Permission.MODELS
    menu_label = "New model"
    icon = "fa-solid fa-circle-plus"
    path = "/new-model"
    route_name = "model-new"

    def __init__(
        self, settings: Settings, database: AsyncDatabase, blobs: Blobs, mount: Mount, changes: Changes
    ) -> None:
        super().__init__()
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._mount = mount
        self._changes = changes
        self._limits = UploadLimits(
            settings.max_model_file_bytes, settings.upload_idle_seconds, settings.upload_limit_seconds
        )

    @route("", methods=["GET"])
    async def index(self, request: Request) -> Response:
        """An empty form, or that of a draft."""
        model_id = request.query_params.get("version")
        view = None if model_id is None else await self._database.run(drafts.version_view, model_id)
        families = await self._database.read(catalogue_rows.families)
        known = {
            family.canonical_name: [channel.channel_id for channel in family.input_channels] for family in families
        }
        return self.render(
            request,
            "console/new_model.html",
            view=view,
            families=known,
            first={"families": known, "draft": None if view is None else _fields_of(view)},
            runtimes=[(name.value, CALLS[name]) for name in RuntimeName],
            structure_types=sorted(STRUCTURE_TYPES.items()),
            framework_statuses=sorted(FRAMEWORK_STATUSES.items()),
            choices=choices(),
            sections=_help(),
            most_bytes=self._settings.max_model_file_bytes,
        )

    @route("/draft", methods=["POST"], name="model-draft")
    @as_json
    async def draft(self, request: Request) -> dict[str, Any]:
        """Save the form."""
        require(request, Permission.MODELS)
        fields = await json_fields(request)
        name = text_field(fields, "family").strip()
        stored = await self._database.run(catalogue_rows.find_family, name) if "\x00" not in name else None
        seen = text_field(fields, "seen") or None
        earlier = None
        if seen is not None:
            earlier = (await self._database.run(drafts.version_view, text_field(fields, "model_id"))).entry.version
        draft = read_draft(fields, stored, earlier)
        model_id = draft.version.model_id

        def work(session: Session) -> drafts.VersionView:
            drafts.save_draft(session, draft.family, draft.version, draft.attachment, seen)
            return drafts.version_view(session, model_id)

        def details(view: drafts.VersionView) -> Details:
            attachment = view.entry.attachment or draft.attachment
            return {"family": view.entry.family_name, **attachment_details(attachment)}

        view = await self._changes.make(request, "model.drafted", f"model:{model_id}", work, details)
        return {"model_id": model_id, "family_id": view.family_id, "seen": view.seen}

    @route("/file", methods=["POST"], name="model-file")
    @as_json
    async def file(self, request: Request) -> dict[str, Any]:
        """Take the body as the draft's model file or module, straight to the volume.

        The answer's `seen` is of this very change, as a draft's is: whoever saves next names it, and what somebody else
        saved in between is not taken for theirs.
        """
        require(request, Permission.MODELS)
        model_id, kind = request.query_params.get("model_id", ""), request.query_params.get("kind", "")
        if kind not in {"artifact", "module"}:
            raise InvalidModel("The upload is neither a model file nor a module; load the page again.")
        label = label_of(request.query_params.get("name", ""))
        seen = request.query_params.get("seen") or None
        announced = announced_bytes(request, self._limits.most_bytes)
        await self._mount.require()
        await to_thread.run_sync(self._require_room, announced or 0)
        view = await self._database.run(drafts.version_view, model_id)
        if view.has_jobs or view.entry.runnable:
            raise ModelUnavailable(f"«{model_id}» is no draft; make a new version of it and upload the file there.")
        await self._database.run(drafts.require_unchanged, model_id, seen)  # before all of a large file is read
        pending = await to_thread.run_sync(self._blobs.new_model_file)
        await to_thread.run_sync(pending.__enter__)
        try:
            await stream_to_file(request, pending, self._limits, lambda _: None)
            await to_thread.run_sync(check_module if kind == "module" else check_beginning, pending.partial, label)
            await to_thread.run_sync(pending.commit)
            stored = StoredFile(pending.target.name, pending.sha256, pending.size_bytes, label)
            now_seen = await self._keep(request, model_id, kind, stored, seen)
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(pending.__exit__, None, None, None)
        return {"name": label, "bytes": stored.size_bytes, "sha256": stored.sha256, "seen": now_seen}

    async def _keep(self, request: Request, model_id: str, kind: str, stored: StoredFile, seen: str | None) -> str:
        def work(session: Session) -> tuple[str, list[str]]:
            now_seen = drafts.set_file(session, model_id, kind, stored, seen)
            return now_seen, catalogue_rows.unreferenced_files(session)

        details: dict[str, str | int] = {"sha256": stored.sha256, "bytes": stored.size_bytes, "kind": kind}
        try:
            now_seen, old = await self._changes.make(request, "model.file_uploaded", f"model:{model_id}", work, details)
        except DatabaseUnavailable:
            # The commit whose reply was lost may have happened, or may yet. If nobody can tell now, the file stays for
            # the janitor to judge: one that no row names is waste, a model without its file is a loss.
            view = await self._database.run(drafts.version_view, model_id)
            if stored not in (view.artifact, view.module):
                raise
            return view.seen
        except Exception:
            await to_thread.run_sync(self._blobs.delete_model_file, stored.name)
            raise
        for name in old:
            await to_thread.run_sync(self._blobs.delete_model_file, name)
        return now_seen

    def _require_room(self, wanted_bytes: int) -> None:
        free = self._blobs.free_bytes()
        if free is not None and free - wanted_bytes < self._settings.min_free_bytes:
            raise StorageFull(
                f"The server's volume has {free} bytes left, too few for this file; free some space first."
            )


def _fields_of(view: drafts.VersionView) -> dict[str, Any]:
    """A version as the form's fields."""
    entry, attachment = view.entry, view.entry.attachment
    return {
        "family": entry.family_name,
        "model_id": entry.version.model_id,
        "version_description": entry.version.description,
        "major": entry.version.major,
        "minor": entry.version.minor,
        "language_code": entry.version.language_code,
        "structures": [
            {
                "name": structure.name,
                "structure_id": structure.structure_id,
                "color": ""
                if structure.color is None
                else hex_of([structure.color.red, structure.color.green, structure.color.blue]),
                "type": structure.structure_type,
                "fma_code": structure.fma_code,
                "channel": structure.input_channel_id,
            }
            for structure in entry.version.structures
        ],
        "frameworks": [framework_fields(framework) for framework in entry.version.regulatory_frameworks],
        "runtime": "" if attachment is None else attachment.runtime,
        "class_name": "" if attachment is None else attachment.class_name or "",
        "allow_pickle": attachment is not None and attachment.allow_pickle,
        "options": "" if attachment is None else shown_options(attachment.options),
        "time_limit_seconds": "" if attachment is None else attachment.time_limit_seconds or "",
        "artifact": None if view.artifact is None else view.artifact.uploaded_name,
        "module": None if view.module is None else view.module.uploaded_name,
        "seen": view.seen,
    }


def _help() -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Each section of the options with name, default and meaning, from the model that checks them."""
    sections = []
    for section, (model, inner) in SECTIONS.items():
        rows = []
        for name, field in model.model_fields.items():
            if name not in inner:
                default = field.get_default(call_default_factory=False)
                shown = "" if default in ("", (), {}, None) else str(getattr(default, "value", default))
                rows.append((name, shown, field.description or ""))
        sections.append((section, rows))
    return sections
