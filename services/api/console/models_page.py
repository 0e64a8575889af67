"""Models as their makers see them: families with what is still to do, and what can be done to their versions."""

import logging
from dataclasses import asdict, dataclass
from typing import Any

from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette_admin.routing import route

from services.api.console.changes import Changes
from services.api.console.family_form import channel_in_words, patients_in_words
from services.api.console.fields import json_fields, text_field
from services.api.console.page import Page, account_of, as_json, require
from services.api.doorbell import Ringer
from services.core.accounts import Permission
from services.core.attachment_details import attachment_details
from services.core.audit import Details
from services.core.db import drafts, family_views, model_checks
from services.core.db.family_views import FamilyView
from services.core.db.session import AsyncDatabase, Session
from services.core.errors import InvalidModel
from services.core.model_check import CheckState, fingerprint_of
from services.core.model_library import ModelLibrary
from services.core.model_todos import todos

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Line:
    """One version on the page."""

    model_id: str
    number: str
    state: str
    """published, draft, or disabled."""
    runtime: str
    structures: int
    jobs: bool
    seen: str
    todos: list[str]


class ModelsPage(Page):
    """Families, versions, and what operators of models do to them."""

    menu_label = "Models"
    icon = "fa-solid fa-cubes"
    path = "/models"
    route_name = "models"

    def __init__(self, database: AsyncDatabase, library: ModelLibrary, changes: Changes, ringer: Ringer) -> None:
        super().__init__()
        self._database = database
        self._library = library
        self._changes = changes
        self._ringer = ringer

    @route("", methods=["GET"])
    async def index(self, request: Request) -> Response:
        """Every family."""
        families = await self._database.read(family_views.family_views)
        return self.render(request, "console/models.html", families=[(family, _lines(family)) for family in families])

    @route("/family/{id:int}", methods=["GET"], name="family")
    async def family(self, request: Request) -> Response:
        """One family with its versions."""
        family = await self._family(request)
        return self.render(
            request,
            "console/family.html",
            family=family,
            lines=_lines(family),
            patients=patients_in_words(family.patients),
            channels=[channel_in_words(channel) for channel in family.inputs],
        )

    @route("/family/{id:int}/export", methods=["GET"], name="family-export")
    async def export(self, request: Request) -> Response:
        """The serialized ModelFamily with all its versions."""
        family = await self._family(request)
        message = await to_thread.run_sync(self._library.export_family, family.name)
        name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in family.name)
        headers = {"Content-Disposition": f'attachment; filename="{name}.pb"'}
        return Response(message, media_type="application/x-protobuf", headers=headers)

    @route("/copy", methods=["POST"], name="model-copy")
    @as_json
    async def copy(self, request: Request) -> dict[str, Any]:
        """A draft that is like a version: a duplicate, or the next version of it."""
        require(request, Permission.MODELS)
        fields = await json_fields(request)
        model_id = text_field(fields, "model_id")
        new_id = text_field(fields, "new_id").strip()
        if not new_id:
            raise InvalidModel("The copy needs an identifier of its own; fill it in.")
        next_minor = fields.get("next_minor") is True
        await self._changes.make(
            request,
            "model.copied",
            f"model:{new_id}",
            lambda session: drafts.copy_version(session, model_id, new_id, next_minor=next_minor),
            {"of": model_id},
        )
        return {"model_id": new_id, "url": str(request.url_for("admin:model-new").include_query_params(version=new_id))}

    @route("/publish", methods=["POST"], name="model-publish")
    @as_json
    async def publish(self, request: Request) -> dict[str, Any]:
        """Let clients use a version. One that no dry run has passed only where that is said in so many words."""
        require(request, Permission.MODELS)
        fields = await json_fields(request)
        model_id, unchecked = text_field(fields, "model_id"), fields.get("unchecked") is True
        seen = text_field(fields, "seen") or None

        def work(session: Session) -> drafts.VersionView:
            view = drafts.version_view(session, model_id, lock=True)
            check = model_checks.newest(session, model_id)
            missing = todos(view.entry, view.artifact, check, proven=view.has_jobs)
            if missing and not (unchecked and missing[0].startswith(("Try it", "The dry run failed"))):
                raise InvalidModel(f"«{model_id}» cannot be published yet. {missing[0]}")
            if not missing and not (_passed(view, check) or unchecked or view.entry.enabled or view.has_jobs):
                raise InvalidModel(f"The dry run of «{model_id}» is not over yet; wait for it.")
            drafts.set_published(session, model_id, True, seen)
            return view

        def details(view: drafts.VersionView) -> Details:
            attachment = view.entry.attachment
            ran = {} if attachment is None else attachment_details(attachment)
            return {"unchecked": "yes" if unchecked else "no", **ran}

        view = await self._changes.make(request, "model.published", f"model:{model_id}", work, details)
        await to_thread.run_sync(self._library.publish, view.entry.family_name)
        return {"model_id": model_id, "url": str(request.url_for("admin:family", id=view.family_id))}

    @route("/disable", methods=["POST"], name="model-disable")
    @as_json
    async def disable(self, request: Request) -> dict[str, Any]:
        """Let clients use a version no longer. Jobs that wait for it fail once a worker takes them."""
        require(request, Permission.MODELS)
        model_id = text_field(await json_fields(request), "model_id")
        entry = await self._changes.make(
            request,
            "model.disabled",
            f"model:{model_id}",
            lambda session: drafts.set_published(session, model_id, False),
        )
        await to_thread.run_sync(self._library.publish, entry.family_name)
        return {"model_id": model_id}

    @route("/delete", methods=["POST"], name="model-delete")
    @as_json
    async def delete(self, request: Request) -> dict[str, Any]:
        """Delete a draft that nobody has used, with its files."""
        require(request, Permission.MODELS)
        fields = await json_fields(request)
        model_id, seen = text_field(fields, "model_id"), text_field(fields, "seen")
        actor = account_of(request).actor
        await to_thread.run_sync(lambda: self._library.delete_version(model_id, actor=actor, seen=seen))
        return {"model_id": model_id}

    @route("/check", methods=["POST"], name="model-check")
    @as_json
    async def check(self, request: Request) -> dict[str, Any]:
        """Ask a worker for a dry run of what is attached to a version."""
        require(request, Permission.MODELS)
        model_id = text_field(await json_fields(request), "model_id")

        def work(session: Session) -> int:
            view = drafts.version_view(session, model_id)
            missing = [line for line in todos(view.entry, view.artifact, None) if not line.startswith("Try it")]
            if missing or view.entry.attachment is None:
                raise InvalidModel(f"«{model_id}» cannot be tried yet. {(missing or ['Choose a runtime.'])[0]}")
            return model_checks.ask(session, model_id, fingerprint_of(view.entry.attachment)).id

        number = await self._changes.make(request, "model.check_asked", f"model:{model_id}", work)
        self._ringer.ask()
        return {"check": number, "state": CheckState.QUEUED.value}

    @route("/state", methods=["GET"], name="model-state")
    @as_json
    async def state(self, request: Request) -> dict[str, Any]:
        """Where a version stands, for the page that shows its dry run live."""
        require(request, Permission.SEE)
        model_id = request.query_params.get("model_id", "")
        view = await self._database.run(drafts.version_view, model_id)
        check = await self._database.run(model_checks.newest, model_id)
        if check is not None and check.state is CheckState.QUEUED:
            self._ringer.ask()  # should the first doorbell have been lost
        fits = check is not None and _fits(view, check)
        return {
            "model_id": model_id,
            "enabled": view.entry.enabled,
            "seen": view.seen,
            "artifact": None if view.artifact is None else asdict(view.artifact),
            "module": None if view.module is None else asdict(view.module),
            "todos": todos(view.entry, view.artifact, check, proven=view.has_jobs),
            "check": None
            if check is None or not fits
            else {
                "state": check.state.value,
                "worker": check.worker,
                "error": check.error_text,
                "report": dict(check.report),
            },
        }

    async def _family(self, request: Request) -> FamilyView:
        number: int = request.path_params["id"]
        family = await self._database.read(family_views.family_view, number)
        if family is None:
            raise HTTPException(404, "There is no such family.")
        return family


def _fits(view: drafts.VersionView, check: Any) -> bool:
    return view.entry.attachment is not None and bool(check.fingerprint == fingerprint_of(view.entry.attachment))


def _passed(view: drafts.VersionView, check: Any) -> bool:
    return check is not None and check.state is CheckState.PASSED and _fits(view, check)


def _lines(family: FamilyView) -> list[_Line]:
    lines = []
    for version, check in family.versions:
        entry = version.entry
        missing = todos(entry, version.artifact, check, proven=version.has_jobs)
        state = "published" if entry.runnable else "disabled" if version.has_jobs else "draft"
        lines.append(
            _Line(
                model_id=entry.version.model_id,
                number=f"{entry.version.major}.{entry.version.minor}",
                state=state,
                runtime="" if entry.attachment is None else entry.attachment.runtime,
                structures=len(entry.version.structures),
                jobs=version.has_jobs,
                seen=version.seen,
                todos=missing if missing or state != "draft" else ["Publish it."],
            )
        )
    return lines
