"""ModelFamily and ModelsCollection ⇄ `services.core.catalogue`. Whatever the message carries survives both ways."""

import re
from collections.abc import Sequence

from google.protobuf import json_format

from services.core.catalogue import (
    ChannelConstraints,
    Color,
    FamilyDescription,
    InputChannel,
    ModelFamily,
    ModelVersion,
    PatientConstraints,
    RegulatoryFramework,
    Structure,
)
from services.core.errors import MalformedMessage
from services.core.wire._pb import Model_pb2 as pb
from services.core.wire.fields import (
    Encoding,
    instant_from,
    instant_to,
    parse,
    serialize,
    text,
    vector_from,
    vector_to,
)


def decode_family(data: bytes) -> ModelFamily:
    """A serialized ModelFamily as a value.

    Raises:
        MalformedMessage: it does not parse, or cannot be stored or offered.
    """
    return _family_from(parse(pb.ModelFamily, data))


def decode_family_json(document: str) -> ModelFamily:
    """A ModelFamily in protobuf's JSON mapping as a value.

    Raises:
        MalformedMessage: it does not parse, or cannot be stored or offered.
    """
    try:
        return _family_from(json_format.Parse(document, pb.ModelFamily()))
    except json_format.ParseError as error:
        raise MalformedMessage(
            f"The document is not a ModelFamily in protobuf's JSON mapping: {_worded(error)}"
        ) from error


def _worded(error: json_format.ParseError) -> str:
    """Protobuf's words without the way it went to the fault, which they name at their end; with what an enum has."""
    text = " ".join(re.sub(r"Failed to parse \w+ field: ", "", str(error)).split()).rstrip(".")
    found = re.search(r"for enum type ([\w.]+)", text)
    if found is None:
        return f"{text}."
    names = pb.DESCRIPTOR.pool.FindEnumTypeByName(found[1]).values_by_name
    return f"{text}; it has to be one of {', '.join(names)}."


def encode_family(family: ModelFamily, encoding: Encoding = Encoding.PROTOBUF) -> bytes:
    """The ModelFamily message of `family`."""
    return serialize(_family_to(family), encoding)


def decode_models(data: bytes) -> tuple[ModelFamily, ...]:
    """A serialized ModelsCollection as values.

    Raises:
        MalformedMessage: it does not parse.
    """
    return tuple(_family_from(family) for family in parse(pb.ModelsCollection, data).Models)


def encode_models(families: Sequence[ModelFamily], encoding: Encoding) -> bytes:
    """The ModelsCollection message of `families`."""
    return serialize(pb.ModelsCollection(Models=[_family_to(family) for family in families]), encoding)


def _family_from(message: pb.ModelFamily) -> ModelFamily:
    if not message.CanonicalName:
        raise MalformedMessage("The ModelFamily has no CanonicalName, by which it is found again; give it one.")
    identifiers = [version.ID for version in message.ModelVersions]
    if "" in identifiers:
        raise MalformedMessage("A ModelVersion has no ID, which clients name in their requests; give it one.")
    twice = sorted({identifier for identifier in identifiers if identifiers.count(identifier) > 1})
    if twice:
        raise MalformedMessage(f"Several ModelVersions have the ID {', '.join(twice)}; give each its own.")
    return ModelFamily(
        canonical_name=text(message.CanonicalName, "CanonicalName"),
        description=_description_from(message.FamilyDescription) if message.HasField("FamilyDescription") else None,
        versions=tuple(_version_from(version) for version in message.ModelVersions),
        language_code=text(message.LanguageCode, "LanguageCode"),
    )


def _family_to(family: ModelFamily) -> pb.ModelFamily:
    return pb.ModelFamily(
        CanonicalName=family.canonical_name,
        FamilyDescription=None if family.description is None else _description_to(family.description),
        ModelVersions=[_version_to(version) for version in family.versions],
        LanguageCode=family.language_code,
    )


def _description_from(message: pb.ModelFamilyDescription) -> FamilyDescription:
    constraints = None
    if message.HasField("Constraints"):
        constraints = PatientConstraints(
            body_parts=tuple(message.Constraints.BodyPartsExamined), gender=message.Constraints.Gender
        )
    return FamilyDescription(
        name=text(message.Name, "Name"),
        description=text(message.Description, "Description"),
        clinical_domain=text(message.ClinicalDomain, "ClinicalDomain"),
        anatomical_region=text(message.AnatomicalRegion, "AnatomicalRegion"),
        primary_structure=text(message.PrimaryStructure, "PrimaryStructure"),
        modalities=text(message.Modalities, "Modalities"),
        input_channels=tuple(
            InputChannel(
                channel_id=text(channel.ChannelID, "ChannelID"),
                constraints=_constraints_from(channel.Constraints) if channel.HasField("Constraints") else None,
            )
            for channel in message.InputChannels
        ),
        constraints=constraints,
    )


def _description_to(description: FamilyDescription) -> pb.ModelFamilyDescription:
    constraints = None
    if description.constraints is not None:
        constraints = pb.ModelConstraints()
        constraints.BodyPartsExamined.extend(description.constraints.body_parts)  # type: ignore[arg-type] # open enum
        constraints.Gender = description.constraints.gender  # type: ignore[assignment] # open enum
    return pb.ModelFamilyDescription(
        Name=description.name,
        Description=description.description,
        ClinicalDomain=description.clinical_domain,
        AnatomicalRegion=description.anatomical_region,
        PrimaryStructure=description.primary_structure,
        Modalities=description.modalities,
        InputChannels=[
            pb.ModelChannelDescription(
                ChannelID=channel.channel_id,
                Constraints=None if channel.constraints is None else _constraints_to(channel.constraints),
            )
            for channel in description.input_channels
        ],
        Constraints=constraints,
    )


def _constraints_from(message: pb.ModelChannelConstraints) -> ChannelConstraints:
    return ChannelConstraints(
        accepted_modalities=tuple(message.AcceptedModalities),
        spacing_min=vector_from(message, "SpacingMinInMillimeters"),
        spacing_max=vector_from(message, "SpacingMaxInMillimeters"),
        dimensions_min=vector_from(message, "DimensionsMinInPixels"),
        dimensions_max=vector_from(message, "DimensionsMaxInPixels"),
        original_data_required=message.OriginalDataRequired,
        is_axial=message.IsAxial,
    )


def _constraints_to(constraints: ChannelConstraints) -> pb.ModelChannelConstraints:
    message = pb.ModelChannelConstraints(
        SpacingMinInMillimeters=vector_to(constraints.spacing_min),
        SpacingMaxInMillimeters=vector_to(constraints.spacing_max),
        DimensionsMinInPixels=vector_to(constraints.dimensions_min),
        DimensionsMaxInPixels=vector_to(constraints.dimensions_max),
        OriginalDataRequired=constraints.original_data_required,
        IsAxial=constraints.is_axial,
    )
    message.AcceptedModalities.extend(constraints.accepted_modalities)  # type: ignore[arg-type] # open enum
    return message


def _version_from(message: pb.ModelVersion) -> ModelVersion:
    return ModelVersion(
        model_id=text(message.ID, "ModelVersion.ID"),
        description=text(message.VersionDescription, "VersionDescription"),
        created_on=instant_from(message, "CreatedOn"),
        structures=tuple(structure_from(structure) for structure in message.Structures),
        credits_required=message.NumberOfCreditsRequired,
        major=message.MajorVersion,
        minor=message.MinorVersion,
        regulatory_frameworks=tuple(
            RegulatoryFramework(
                framework=text(framework.Framework, "Framework"),
                status=framework.Status,
                udi=text(framework.UDI, "UDI"),
                manufacturer=text(framework.Manufacturer, "Manufacturer"),
                details_url=text(framework.DetailsURL, "DetailsURL"),
                release_date=instant_from(framework, "ReleaseDate"),
            )
            for framework in message.RegulatoryFrameworks
        ),
        language_code=text(message.LanguageCode, "LanguageCode"),
    )


def _version_to(version: ModelVersion) -> pb.ModelVersion:
    return pb.ModelVersion(
        ID=version.model_id,
        VersionDescription=version.description,
        CreatedOn=instant_to(version.created_on),
        Structures=[structure_to(structure) for structure in version.structures],
        NumberOfCreditsRequired=version.credits_required,
        MajorVersion=version.major,
        MinorVersion=version.minor,
        RegulatoryFrameworks=[
            pb.RegulatoryFramework(
                Framework=framework.framework,
                Status=framework.status,  # type: ignore[arg-type] # open enum
                UDI=framework.udi,
                Manufacturer=framework.manufacturer,
                DetailsURL=framework.details_url,
                ReleaseDate=instant_to(framework.release_date),
            )
            for framework in version.regulatory_frameworks
        ],
        LanguageCode=version.language_code,
    )


def structure_from(message: pb.Structure) -> Structure:
    """One Structure message as a value."""
    color = None
    if message.HasField("Color"):
        color = Color(message.Color.R, message.Color.G, message.Color.B)
    return Structure(
        name=text(message.Name, "Structure.Name"),
        structure_id=text(message.StructureID, "StructureID"),
        color=color,
        structure_type=message.Type,
        fma_code=message.FMACode,
        input_channel_id=text(message.InputChannelID, "InputChannelID"),
    )


def structure_to(structure: Structure) -> pb.Structure:
    """The inverse of `structure_from`."""
    color = structure.color
    return pb.Structure(
        Name=structure.name,
        Color=None if color is None else pb.ColorRGB(R=color.red, G=color.green, B=color.blue),
        Type=structure.structure_type,  # type: ignore[arg-type] # open enum
        FMACode=structure.fma_code,
        InputChannelID=structure.input_channel_id,
        StructureID=structure.structure_id,
    )
