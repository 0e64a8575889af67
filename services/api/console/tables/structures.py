"""The structures that versions draw, as a table: edited one by one, where that keeps the version whole."""

from typing import Any, ClassVar

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette_admin.exceptions import FormValidationError
from starlette_admin.fields import ComputedField, EnumField, IntegerField, StringField

from services.api.console.colors import color_of, hex_of
from services.api.console.model_form import channel_of
from services.api.console.tables.catalogue import HAS_JOBS, UINT32, CatalogueTable, family_name, write_texts
from services.api.console.tables.readable import ReadAs, model_of_structure, name_in
from services.api.console.tables.table import VERSION_FIELD
from services.core.checked_options import model_options
from services.core.db.catalogue_rows import entry_value
from services.core.db.tables import ModelVersionRow, StructureRow
from services.core.errors import InvalidModel
from services.core.wire.enumerations import STRUCTURE_TYPES


async def _model_id(request: Request, row: Any) -> str:
    session: AsyncSession = request.state.session
    with session.sync_session.no_autoflush:
        version = await session.get(ModelVersionRow, row.version_id)
    return "" if version is None else version.model_id


class StructureColor(StringField):
    """A colour: three numbers in the row, #RRGGBB to people."""

    async def parse_obj(self, request: Request, obj: Any) -> Any:
        """As people read it."""
        return hex_of(obj.color)

    async def parse_form_data(self, request: Request, form_data: FormData) -> Any:
        """As the row holds it; what is no colour stays as it was typed, for `validate` to tell."""
        typed = str(form_data.get(self.id) or "").strip()
        try:
            color = color_of(typed)
        except InvalidModel:
            return typed
        return None if color is None else [color.red, color.green, color.blue]

    async def validate(self, request: Request, value: Any, form_values: dict[str, Any]) -> None:
        """Raises ValueError for what is no colour."""
        if isinstance(value, str):
            try:
                color_of(value)
            except InvalidModel as error:
                raise ValueError(error.details) from error


class StructureTable(CatalogueTable):
    """Structures that versions draw."""

    key = "structure"
    display_name = "Structure"
    menu_label = "Structures"
    fields = [
        ComputedField("model", "Model version", getter=_model_id, exclude_from_edit=True),
        IntegerField("position", "Position", exclude_from_edit=True),
        StringField("structure_id", "Structure ID"),
        StringField("name", "Name", required=True),
        StructureColor(
            "color",
            "Colour, #RRGGBB",
            list_template="console/color.html",
            detail_template="console/color.html",
            form_template="console/color_input.html",
        ),
        EnumField("structure_type", "Type", choices=sorted(STRUCTURE_TYPES.items()), coerce=int, required=True),
        IntegerField("fma_code", "FMA code", min=0, max=UINT32),
        StringField("input_channel_id", "Input channel"),
    ]
    read_as: ClassVar[ReadAs] = {
        "model": model_of_structure(),
        "structure_type": name_in(STRUCTURE_TYPES, StructureRow.structure_type),
    }
    searchable_fields = ["model", "name", "structure_id", "structure_type", "fma_code"]

    def subject_of(self, row: Any) -> str:
        """By its name; the entry's action says the rest."""
        return f"{row.version_id}/{row.name}"

    async def family_of(self, request: Request, row: Any) -> str:
        """That of its version."""
        session: AsyncSession = request.state.session
        version = await session.get(ModelVersionRow, row.version_id)
        return "" if version is None else await family_name(request, version)

    async def before_edit(self, request: Request, data: dict[str, Any], obj: Any) -> None:
        """One of a version that has jobs stays as it is; others keep to the family's channels and the options."""
        if await self.has_jobs(request, await _model_id(request, obj)):
            raise FormValidationError({VERSION_FIELD: HAS_JOBS})
        write_texts(obj, data, self)
        faults: dict[str | int, Any] = {}
        if not str(data["name"] or "").strip():
            faults["name"] = "A structure needs a name."
        if data["fma_code"] is not None and not 0 <= data["fma_code"] <= UINT32:
            faults["fma_code"] = f"An FMA code is a whole number from 0 to {UINT32}."
        if faults:
            raise FormValidationError(faults)
        obj.fma_code = data["fma_code"] or 0
        session: AsyncSession = request.state.session
        await session.run_sync(_check_structure, obj)


def _check_structure(session: Session, row: StructureRow) -> None:
    """Settle the input channel, and look whether what is attached to the version can still be used.

    Raises:
        FormValidationError: the family has no such channel, or the version's options do not fit any more.
    """
    with session.no_autoflush:
        version = session.get_one(ModelVersionRow, row.version_id)
        channels = entry_value(version).input_channels
        try:
            row.input_channel_id = channel_of(
                {"input_channel_id": row.input_channel_id},
                "input_channel_id",
                [channel.channel_id for channel in channels],
                f"Structure {row.position + 1}",
            )
        except InvalidModel as error:
            raise FormValidationError({"input_channel_id": error.details}) from error
        entry = entry_value(version)
        if entry.attachment is None:
            return
        try:
            model_options(entry.attachment.runtime, entry.attachment.options, entry.version.structures, channels)
        except InvalidModel as error:
            together = (
                f"Change structures and options together, by Edit on the page Models, once «{version.model_id}» is "
                "disabled."
            )
            raise FormValidationError({VERSION_FIELD: f"{error.details} {together}"}) from error
