"""The catalogue as tables. Texts are edited here; files, options and whole versions have forms of their own."""

import logging
from typing import Any, ClassVar

from anyio import to_thread
from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request
from starlette_admin.exceptions import FormValidationError
from starlette_admin.fields import (
    BooleanField,
    ComputedField,
    DateTimeField,
    IntegerField,
    StringField,
    TextAreaField,
)

from services.api.console.tables.readable import (
    ReadAs,
    family_name_of,
    modality_names,
    name_in,
    uploaded_name,
)
from services.api.console.tables.table import VERSION_FIELD, Table, named
from services.core.accounts import Permission
from services.core.db.tables import (
    BodyPartRow,
    InputChannelRow,
    ModelFamilyRow,
    ModelVersionRow,
    SegmentationJobRow,
)
from services.core.errors import SegIntError
from services.core.model_library import ModelLibrary
from services.core.wire.enumerations import BODY_PARTS, GENDERS, MODALITIES, name_of

logger = logging.getLogger(__name__)

UINT32 = 2**32 - 1
"""What the wire can carry of an FMA code or a version's number."""
HAS_JOBS = "This version has jobs, so it stays as they ran it. Make a new version of it and change that one."


async def family_name(request: Request, row: Any) -> str:
    """The canonical name of the row's family."""
    session: AsyncSession = request.state.session
    family = await session.get(ModelFamilyRow, row.family_id)
    return "" if family is None else family.canonical_name


class CatalogueTable(Table):
    """A table whose changes clients see: after each, the family's message on the volume is written anew."""

    edits: ClassVar[Permission | None] = Permission.MODELS

    def __init__(self, model: type[Any], library: ModelLibrary) -> None:
        self._library = library
        super().__init__(model)

    async def family_of(self, request: Request, row: Any) -> str:
        """The canonical name of the family that the row belongs to."""
        return await family_name(request, row)

    async def has_jobs(self, request: Request, model_id: str) -> bool:
        """Whether any job was ever submitted to the version."""
        session: AsyncSession = request.state.session
        with session.sync_session.no_autoflush:  # what was typed is on the row already, and not looked at yet
            return bool(await session.scalar(select(exists().where(SegmentationJobRow.model_id == model_id))))

    async def after_edit_committed(self, request: Request, obj: Any) -> None:
        """Clients that read the volume see it too."""
        request_family = request.state.changed_family
        try:
            await to_thread.run_sync(self._library.publish, request_family)
        except (SegIntError, OSError) as error:
            logger.warning("family not written to the volume", extra={"family": request_family, "reason": str(error)})

    async def after_edit(self, request: Request, obj: Any) -> None:
        """Note who did it, and what is to be published."""
        request.state.changed_family = await self.family_of(request, obj)
        await super().after_edit(request, obj)


class FamilyTable(CatalogueTable):
    """Model families."""

    key = "family"
    display_name = "Model family"
    menu_label = "Model families"
    fields = [
        IntegerField("id", "No.", exclude_from_edit=True),
        StringField("canonical_name", "Canonical name", read_only=True),
        StringField("name", "Name", maxlength=1000),
        TextAreaField("description", "Description", rows=3),
        StringField("clinical_domain", "Clinical domain"),
        StringField("anatomical_region", "Anatomical region"),
        StringField("primary_structure", "Primary structure"),
        StringField("modalities", "Modalities"),
        named("gender", "Gender", GENDERS, exclude_from_edit=True),
        StringField("language_code", "Language"),
        DateTimeField("created_at", "Created", exclude_from_edit=True),
        DateTimeField("updated_at", "Changed", exclude_from_edit=True),
    ]
    exclude_fields_from_list = ["description", "clinical_domain", "primary_structure", "language_code", "created_at"]
    read_as: ClassVar[ReadAs] = {"gender": name_in(GENDERS, ModelFamilyRow.gender)}
    searchable_fields = ["canonical_name", "name", "description", "anatomical_region", "modalities"]

    def subject_of(self, row: Any) -> str:
        """By its name."""
        return str(row.canonical_name)

    async def family_of(self, request: Request, row: Any) -> str:
        """Itself."""
        return str(row.canonical_name)

    async def before_edit(self, request: Request, data: dict[str, Any], obj: Any) -> None:
        """A family with texts carries a description; an empty field is an empty text."""
        write_texts(obj, data, self)
        obj.described = True


class BodyPartTable(CatalogueTable):
    """Body parts that families are meant for. Their numbers are the wire's."""

    key = "body-part"
    display_name = "Body part"
    menu_label = "Body parts"
    edits = None
    fields = [
        ComputedField("family", "Family", getter=family_name),
        IntegerField("position", "Position"),
        named("code", "Body part", BODY_PARTS),
    ]
    read_as: ClassVar[ReadAs] = {
        "family": family_name_of(BodyPartRow),
        "code": name_in(BODY_PARTS, BodyPartRow.code),
    }
    searchable_fields = ["family", "code"]


class InputChannelTable(CatalogueTable):
    """Input channels of families."""

    key = "input-channel"
    display_name = "Input channel"
    menu_label = "Input channels"
    edits = None
    fields = [
        ComputedField("family", "Family", getter=family_name),
        IntegerField("position", "Position"),
        StringField("channel_id", "Channel"),
        ComputedField(
            "modalities",
            "Modalities",
            getter=lambda _, row: ", ".join(name_of(MODALITIES, code) for code in row.accepted_modalities),
        ),
        ComputedField("spacing", "Spacing, mm", getter=lambda _, row: _range(row.spacing_min, row.spacing_max)),
        ComputedField("dimensions", "Dimensions", getter=lambda _, row: _range(row.dimensions_min, row.dimensions_max)),
        BooleanField("original_data_required", "Original data required"),
        BooleanField("is_axial", "Axial"),
    ]
    read_as: ClassVar[ReadAs] = {
        "family": family_name_of(InputChannelRow),
        "modalities": modality_names(),
    }
    searchable_fields = ["family", "channel_id", "modalities"]


class VersionTable(CatalogueTable):
    """Model versions."""

    key = "version"
    display_name = "Model version"
    menu_label = "Model versions"
    fields = [
        IntegerField("id", "No.", exclude_from_edit=True),
        StringField("model_id", "Identifier", read_only=True),
        ComputedField("family", "Family", getter=family_name, exclude_from_edit=True),
        IntegerField("major", "Major", min=0, max=UINT32, required=True),
        IntegerField("minor", "Minor", min=0, max=UINT32, required=True),
        TextAreaField("description", "Description", rows=3),
        StringField("language_code", "Language"),
        BooleanField("enabled", "Enabled", exclude_from_edit=True),
        StringField("runtime", "Runtime", exclude_from_edit=True),
        ComputedField("file", "Model file", getter=lambda _, row: _file(row.artifact), exclude_from_edit=True),
        ComputedField("code", "Module", getter=lambda _, row: _file(row.module), exclude_from_edit=True),
        StringField("class_name", "Class", exclude_from_edit=True),
        BooleanField("allow_pickle", "Pickle allowed", exclude_from_edit=True),
        IntegerField("time_limit_seconds", "Time limit, s", min=1, max=2**31 - 1),
        DateTimeField("created_on", "Created", exclude_from_edit=True),
    ]
    exclude_fields_from_list = ["description", "language_code", "code", "class_name", "allow_pickle"]
    read_as: ClassVar[ReadAs] = {
        "family": family_name_of(ModelVersionRow),
        "file": uploaded_name(ModelVersionRow.artifact_name),
        "code": uploaded_name(ModelVersionRow.module_name),
    }
    searchable_fields = ["model_id", "family", "description", "runtime", "file", "code"]

    def subject_of(self, row: Any) -> str:
        """By its identifier."""
        return str(row.model_id)

    async def before_edit(self, request: Request, data: dict[str, Any], obj: Any) -> None:
        """A version that has jobs stays as it is."""
        if await self.has_jobs(request, obj.model_id):
            raise FormValidationError({VERSION_FIELD: HAS_JOBS})
        write_texts(obj, data, self)
        faults: dict[str | int, Any] = {
            name: f"A whole number from 0 to {UINT32} is needed."
            for name in ("major", "minor")
            if not 0 <= data[name] <= UINT32
        }
        if data["time_limit_seconds"] is not None and not 1 <= data["time_limit_seconds"] < 2**31:
            faults["time_limit_seconds"] = "A time limit is at least 1 second."
        if faults:
            raise FormValidationError(faults)


def write_texts(row: Any, data: dict[str, Any], table: Table) -> None:
    """Columns of text hold texts, and no NUL, which PostgreSQL cannot store; a browser's line ends are no change."""
    for field in table.fields:
        if type(field) in {StringField, TextAreaField} and field.name in data:
            setattr(row, field.name, str(data[field.name] or "").replace("\x00", "").replace("\r\n", "\n"))


def _range(least: list[float] | None, most: list[float] | None) -> str:
    def words(vector: list[float] | None) -> str:
        return "any" if vector is None else "×".join(f"{component:g}" for component in vector)

    return "" if least is None and most is None else f"{words(least)} to {words(most)}"


def _file(row: Any) -> str:
    return "" if row is None else f"{row.uploaded_name} ({row.size_bytes} bytes, {row.sha256[:12]}…)"
