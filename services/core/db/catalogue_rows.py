"""Catalogue values ⇄ rows, field by field. Presence is kept: an absent message and an empty one stay two things."""

from collections.abc import Sequence
from datetime import datetime

from services.core.catalogue import (
    Attachment,
    CatalogueEntry,
    ChannelConstraints,
    Color,
    FamilyDescription,
    InputChannel,
    Instant,
    ModelFamily,
    ModelVersion,
    PatientConstraints,
    RegulatoryFramework,
    StoredFile,
    Structure,
)
from services.core.db.tables import (
    BodyPartRow,
    InputChannelRow,
    ModelFamilyRow,
    ModelFileRow,
    ModelVersionRow,
    RegulatoryFrameworkRow,
    StructureRow,
)
from services.core.volumes import Vector


def file_row(file: StoredFile | None) -> ModelFileRow | None:
    """A new row for `file`."""
    if file is None:
        return None
    return ModelFileRow(
        name=file.name, sha256=file.sha256, size_bytes=file.size_bytes, uploaded_name=file.uploaded_name
    )


def _file(row: ModelFileRow | None) -> StoredFile | None:
    return None if row is None else StoredFile(row.name, row.sha256, row.size_bytes, row.uploaded_name)


def write_description(row: ModelFamilyRow, family: ModelFamily) -> None:
    """Everything of `family` but its versions."""
    description = family.description or FamilyDescription()
    row.language_code = family.language_code
    row.described = family.description is not None
    row.name = description.name
    row.description = description.description
    row.clinical_domain = description.clinical_domain
    row.anatomical_region = description.anatomical_region
    row.primary_structure = description.primary_structure
    row.modalities = description.modalities
    row.gender = None if description.constraints is None else description.constraints.gender
    body_parts = () if description.constraints is None else description.constraints.body_parts
    row.body_parts = [BodyPartRow(position=position, code=code) for position, code in enumerate(body_parts)]
    row.input_channels = [_channel_row(i, channel) for i, channel in enumerate(description.input_channels)]


def _channel_row(position: int, channel: InputChannel) -> InputChannelRow:
    constraints = channel.constraints or ChannelConstraints()
    return InputChannelRow(
        position=position,
        channel_id=channel.channel_id,
        constrained=channel.constraints is not None,
        accepted_modalities=list(constraints.accepted_modalities),
        spacing_min=_list(constraints.spacing_min),
        spacing_max=_list(constraints.spacing_max),
        dimensions_min=_list(constraints.dimensions_min),
        dimensions_max=_list(constraints.dimensions_max),
        original_data_required=constraints.original_data_required,
        is_axial=constraints.is_axial,
    )


def write_version(row: ModelVersionRow, version: ModelVersion) -> None:
    """Everything that the wire says of `version`; what is attached stays."""
    row.description = version.description
    row.created_on, row.created_on_nanoseconds = _split(version.created_on)
    row.credits_required = version.credits_required
    row.major = version.major
    row.minor = version.minor
    row.language_code = version.language_code
    row.structures = [
        StructureRow(
            position=position,
            structure_id=structure.structure_id,
            name=structure.name,
            color=None
            if structure.color is None
            else [structure.color.red, structure.color.green, structure.color.blue],
            structure_type=structure.structure_type,
            fma_code=structure.fma_code,
            input_channel_id=structure.input_channel_id,
        )
        for position, structure in enumerate(version.structures)
    ]
    row.regulatory_frameworks = [_framework_row(i, f) for i, f in enumerate(version.regulatory_frameworks)]


def _framework_row(position: int, framework: RegulatoryFramework) -> RegulatoryFrameworkRow:
    release_date, nanoseconds = _split(framework.release_date)
    return RegulatoryFrameworkRow(
        position=position,
        framework=framework.framework,
        status=framework.status,
        udi=framework.udi,
        manufacturer=framework.manufacturer,
        details_url=framework.details_url,
        release_date=release_date,
        release_date_nanoseconds=nanoseconds,
    )


def family_value(row: ModelFamilyRow, versions: Sequence[ModelVersionRow]) -> ModelFamily:
    """The family of `row` with the given of its versions."""
    description = None
    if row.described:
        constraints = None
        if row.gender is not None:
            constraints = PatientConstraints(tuple(part.code for part in row.body_parts), row.gender)
        description = FamilyDescription(
            name=row.name,
            description=row.description,
            clinical_domain=row.clinical_domain,
            anatomical_region=row.anatomical_region,
            primary_structure=row.primary_structure,
            modalities=row.modalities,
            input_channels=_channels(row),
            constraints=constraints,
        )
    return ModelFamily(row.canonical_name, description, tuple(_version(v) for v in versions), row.language_code)


def _channels(row: ModelFamilyRow) -> tuple[InputChannel, ...]:
    return tuple(InputChannel(channel.channel_id, _constraints(channel)) for channel in row.input_channels)


def _constraints(row: InputChannelRow) -> ChannelConstraints | None:
    if not row.constrained:
        return None
    return ChannelConstraints(
        accepted_modalities=tuple(row.accepted_modalities),
        spacing_min=_vector(row.spacing_min),
        spacing_max=_vector(row.spacing_max),
        dimensions_min=_vector(row.dimensions_min),
        dimensions_max=_vector(row.dimensions_max),
        original_data_required=row.original_data_required,
        is_axial=row.is_axial,
    )


def _version(row: ModelVersionRow) -> ModelVersion:
    return ModelVersion(
        model_id=row.model_id,
        description=row.description,
        created_on=_join(row.created_on, row.created_on_nanoseconds),
        structures=tuple(
            Structure(
                name=structure.name,
                structure_id=structure.structure_id,
                color=None if structure.color is None else Color(*structure.color),
                structure_type=structure.structure_type,
                fma_code=structure.fma_code,
                input_channel_id=structure.input_channel_id,
            )
            for structure in row.structures
        ),
        credits_required=row.credits_required,
        major=row.major,
        minor=row.minor,
        regulatory_frameworks=tuple(
            RegulatoryFramework(
                framework=framework.framework,
                status=framework.status,
                udi=framework.udi,
                manufacturer=framework.manufacturer,
                details_url=framework.details_url,
                release_date=_join(framework.release_date, framework.release_date_nanoseconds),
            )
            for framework in row.regulatory_frameworks
        ),
        language_code=row.language_code,
    )


def entry_value(row: ModelVersionRow) -> CatalogueEntry:
    """A model version with what the server knows beyond the wire."""
    attachment = None
    if row.runtime is not None:
        attachment = Attachment(
            runtime=row.runtime,
            artifact=_file(row.artifact),
            module=_file(row.module),
            class_name=row.class_name,
            allow_pickle=row.allow_pickle,
            options=row.options,
            time_limit_seconds=row.time_limit_seconds,
        )
    return CatalogueEntry(row.family.canonical_name, _version(row), _channels(row.family), attachment, row.enabled)


def _split(instant: Instant | None) -> tuple[datetime | None, int]:
    return (None, 0) if instant is None else (instant.at, instant.nanoseconds)


def _join(at: datetime | None, nanoseconds: int) -> Instant | None:
    return None if at is None else Instant(at, nanoseconds)


def _list(vector: Vector | None) -> list[float] | None:
    return None if vector is None else list(vector)


def _vector(values: list[float] | None) -> Vector | None:
    return None if values is None else (values[0], values[1], values[2])
