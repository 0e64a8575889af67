"""The new-model form's fields as values of the catalogue; each fault is a sentence that names the field."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from services.api.console.colors import color_of
from services.api.console.family_form import read_channels, read_patients
from services.api.console.form_values import UINT32, choice_of, number_of, row_of, rows_of, text_of
from services.api.console.framework_form import read_frameworks
from services.core.catalogue import (
    Attachment,
    FamilyDescription,
    Instant,
    ModelFamily,
    ModelVersion,
    RuntimeName,
    Structure,
)
from services.core.checked_options import model_options
from services.core.errors import InvalidModel
from services.core.options_text import parse_options
from services.core.wire.enumerations import STRUCTURE_TYPES

MOST_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class Draft:
    """What the form holds."""

    family: ModelFamily
    """New, or only the name of one that is stored."""
    version: ModelVersion
    attachment: Attachment
    """Without its files."""


def read_draft(fields: Mapping[str, Any], stored: ModelFamily | None, earlier: ModelVersion | None = None) -> Draft:
    """The form's fields, checked.

    Args:
        stored: the family of the name that the form gives; None when it is to be made.
        earlier: the version that is changed; it keeps what the form has no field for.

    Raises:
        InvalidModel: a field is missing, or has a value that cannot be used.
    """
    family = stored or _family(fields)
    channels = [channel.channel_id for channel in family.input_channels]
    types = {*STRUCTURE_TYPES, *(structure.structure_type for structure in (earlier.structures if earlier else ()))}
    structures = tuple(
        _structure(number, row, channels, types) for number, row in enumerate(rows_of(fields, "structures"), start=1)
    )
    if not structures:
        raise InvalidModel("The model draws no structure; add at least one row to the structures.")
    version = replace(
        earlier or ModelVersion("", created_on=Instant(datetime.now(UTC))),
        model_id=text_of(fields, "model_id", "The version's identifier", required=True),
        description=text_of(fields, "version_description", "The version's description"),
        structures=structures,
        major=number_of(fields, "major", "The major number", UINT32),
        minor=number_of(fields, "minor", "The minor number", UINT32),
        language_code=text_of(fields, "language_code", "The language") or "en",
        regulatory_frameworks=read_frameworks(fields, earlier.regulatory_frameworks if earlier else ()),
    )
    runtime = text_of(fields, "runtime", "The runtime", required=True)
    if runtime not in {name.value for name in RuntimeName}:
        raise InvalidModel(f"There is no runtime «{runtime}»; choose one of the list.")
    options = parse_options(str(fields.get("options") or ""))
    model_options(runtime, options, version.structures, family.input_channels)
    time_limit = number_of(fields, "time_limit_seconds", "The time limit", MOST_SECONDS)
    attachment = Attachment(
        runtime=runtime,
        class_name=text_of(fields, "class_name", "The class") or None,
        allow_pickle=fields.get("allow_pickle") is True,
        options=options,
        time_limit_seconds=time_limit or None,
    )
    return Draft(family, version, attachment)


def channel_of(row: Mapping[str, Any], name: str, channels: Sequence[str], what: str) -> str:
    """The input channel on whose grid a structure's mask lies; the family's first where the field is empty.

    Raises:
        InvalidModel: the family has `channels`, and none of them is it.
    """
    channel = text_of(row, name, f"{what}: the input channel")
    if channel and channels and channel not in channels:
        raise InvalidModel(f"{what}: the family has no input channel «{channel}»; it has {', '.join(channels)}.")
    return channel or (channels[0] if channels else "")


def _family(fields: Mapping[str, Any]) -> ModelFamily:
    name = text_of(fields, "family", "The family's name", required=True)
    return ModelFamily(
        canonical_name=name,
        description=FamilyDescription(
            name=name,
            description=text_of(fields, "description", "The description"),
            clinical_domain=text_of(fields, "clinical_domain", "The clinical domain"),
            anatomical_region=text_of(fields, "anatomical_region", "The anatomical region"),
            primary_structure=text_of(fields, "primary_structure", "The primary structure"),
            modalities=text_of(fields, "modalities", "The modalities"),
            input_channels=read_channels(fields),
            constraints=read_patients(fields),
        ),
        language_code=text_of(fields, "language_code", "The language") or "en",
    )


def _structure(number: int, row: Any, channels: Sequence[str], types: Collection[int]) -> Structure:
    what = f"Structure {number}"
    row = row_of(row, what)
    return Structure(
        name=text_of(row, "name", f"{what}: the name", required=True),
        structure_id=text_of(row, "structure_id", f"{what}: the identifier") or str(number),
        color=color_of(text_of(row, "color", f"{what}: the colour")),
        structure_type=choice_of(row, "type", f"{what}: the type", types),
        fma_code=number_of(row, "fma_code", f"{what}: the FMA code", UINT32),
        input_channel_id=channel_of(row, "channel", channels, what),
    )
