"""Body parts, gender and input channels of a family, in a form of their own; and what such forms offer to choose."""

from typing import Any

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette_admin.routing import route

from services.api.console.changes import Changes
from services.api.console.family_form import channel_fields, read_channels, read_patients
from services.api.console.fields import json_fields, text_field
from services.api.console.page import Page, as_json, require
from services.core.accounts import Permission
from services.core.catalogue import ModelFamily
from services.core.checked_options import model_options
from services.core.db import family_inputs
from services.core.db.session import AsyncDatabase, Session
from services.core.errors import InvalidModel
from services.core.model_library import ModelLibrary
from services.core.wire.enumerations import BODY_PARTS, GENDERS, MODALITIES, name_of


class FamilyInputsPage(Page):
    """Who may change models changes here what a family takes, as long as no job has run on it."""

    permission = Permission.MODELS
    menu_label = "What a family takes"
    add_to_menu = False
    path = "/family-inputs"
    route_name = "family-inputs"

    def __init__(self, database: AsyncDatabase, library: ModelLibrary, changes: Changes) -> None:
        super().__init__()
        self._database = database
        self._library = library
        self._changes = changes

    @route("/{id:int}", methods=["GET"], name="family-inputs-form")
    async def form(self, request: Request) -> Response:
        """The form, filled in."""
        number: int = request.path_params["id"]
        found = await self._database.run(family_inputs.inputs_of, number)
        description = found.family.description
        patients = None if description is None else description.constraints
        gender = patients.gender if patients else next(code for code, name in GENDERS.items() if name == "Any")
        return self.render(
            request,
            "console/family_inputs.html",
            number=number,
            family=found.family,
            why_not=found.why_not,
            first={
                "seen": found.seen,
                "gender": gender,
                "body_parts": list(patients.body_parts) if patients else [],
                "channels": [channel_fields(channel) for channel in found.family.input_channels],
            },
            choices=choices(found.family),
        )

    @route("/{id:int}/save", methods=["POST"], name="family-inputs-save")
    @as_json
    async def save(self, request: Request) -> dict[str, Any]:
        """Save the form."""
        require(request, Permission.MODELS)
        number: int = request.path_params["id"]
        fields = await json_fields(request)
        stored = (await self._database.run(family_inputs.inputs_of, number)).family
        description = stored.description
        channels = read_channels(fields, stored.input_channels)
        patients = read_patients(fields, None if description is None else description.constraints)
        seen = text_field(fields, "seen")

        def work(session: Session) -> None:
            entries = family_inputs.save_inputs(session, number, channels=channels, patients=patients, seen=seen)
            for entry in entries:
                if entry.attachment is None:
                    continue
                try:
                    model_options(
                        entry.attachment.runtime, entry.attachment.options, entry.version.structures, channels
                    )
                except InvalidModel as error:
                    raise InvalidModel(f"«{entry.version.model_id}»: {error.details}") from error

        name = stored.canonical_name
        details: dict[str, str | int] = {"channels": ", ".join(channel.channel_id for channel in channels)}
        await self._changes.make(request, "family.inputs", f"family:{name}", work, details)
        await to_thread.run_sync(self._library.publish, name)
        return {"url": str(request.url_for("admin:family", id=number))}


def choices(family: ModelFamily | None = None) -> dict[str, list[tuple[int, str]]]:
    """What the form's lists offer: what has a name, and what `family` has besides."""
    description = None if family is None else family.description
    patients = None if description is None else description.constraints
    channels = () if family is None else family.input_channels
    constraints = [channel.constraints for channel in channels if channel.constraints]
    modalities = {*MODALITIES, *(code for each in constraints for code in each.accepted_modalities)}
    parts = {*BODY_PARTS, *(patients.body_parts if patients else ())}
    genders = {*GENDERS, *([patients.gender] if patients else [])}
    return {
        "body_parts": sorted(((code, name_of(BODY_PARTS, code)) for code in parts), key=lambda item: item[1]),
        "genders": sorted((code, name_of(GENDERS, code)) for code in genders),
        "modalities": sorted((code, name_of(MODALITIES, code)) for code in modalities),
    }
