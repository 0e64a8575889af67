"""The new-model form's fields as values of the catalogue; each fault is a sentence that names the field."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from services.api.console.colors import color_of
from services.core.catalogue import (
    Attachment,
    FamilyDescription,
    InputChannel,
    Instant,
    ModelFamily,
    ModelVersion,
    PatientConstraints,
    RuntimeName,
    Structure,
)
from services.core.checked_options import model_options
from services.core.errors import InvalidModel
from services.core.options_text import parse_options

UINT32 = 2**32 - 1
"""What the wire can carry of a code or a version's number."""
MOST_CHARACTERS = 4000
MOST_STRUCTURES = 500
MOST_SECONDS = 24 * 3600
SURROGATES = range(0xD800, 0xE000)


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
    structures = tuple(
        _structure(number, row, channels) for number, row in enumerate(_rows(fields, "structures"), start=1)
    )
    if not structures:
        raise InvalidModel("The model draws no structure; add at least one row to the structures.")
    version = replace(
        earlier or ModelVersion("", created_on=Instant(datetime.now(UTC))),
        model_id=_text(fields, "model_id", "The version's identifier", required=True),
        description=_text(fields, "version_description", "The version's description"),
        structures=structures,
        major=_number(fields, "major", "The major number", UINT32),
        minor=_number(fields, "minor", "The minor number", UINT32),
        language_code=_text(fields, "language_code", "The language") or "en",
    )
    runtime = _text(fields, "runtime", "The runtime", required=True)
    if runtime not in {name.value for name in RuntimeName}:
        raise InvalidModel(f"There is no runtime «{runtime}»; choose one of the list.")
    options = parse_options(str(fields.get("options") or ""))
    model_options(runtime, options, version.structures, family.input_channels)
    time_limit = _number(fields, "time_limit_seconds", "The time limit", MOST_SECONDS)
    attachment = Attachment(
        runtime=runtime,
        class_name=_text(fields, "class_name", "The class") or None,
        allow_pickle=fields.get("allow_pickle") is True,
        options=options,
        time_limit_seconds=time_limit or None,
    )
    return Draft(family, version, attachment)


def _family(fields: Mapping[str, Any]) -> ModelFamily:
    channels = [part.strip() for part in _text(fields, "channels", "The input channels").split(",") if part.strip()]
    if not channels:
        raise InvalidModel("The model needs an input channel; name it, such as CT, or several with commas between.")
    if len(set(channels)) != len(channels):
        raise InvalidModel("An input channel is named twice; name each once.")
    name = _text(fields, "family", "The family's name", required=True)
    body_parts = tuple(_number({"code": code}, "code", "A body part", UINT32) for code in _rows(fields, "body_parts"))
    return ModelFamily(
        canonical_name=name,
        description=FamilyDescription(
            name=name,
            description=_text(fields, "description", "The description"),
            clinical_domain=_text(fields, "clinical_domain", "The clinical domain"),
            anatomical_region=_text(fields, "anatomical_region", "The anatomical region"),
            primary_structure=_text(fields, "primary_structure", "The primary structure"),
            modalities=_text(fields, "modalities", "The modalities"),
            input_channels=tuple(InputChannel(channel) for channel in channels),
            constraints=PatientConstraints(body_parts, _number(fields, "gender", "The gender", UINT32)),
        ),
        language_code=_text(fields, "language_code", "The language") or "en",
    )


def _structure(number: int, row: Any, channels: Sequence[str]) -> Structure:
    what = f"Structure {number}"
    if not isinstance(row, Mapping):
        raise InvalidModel(f"{what} cannot be read; load the page again.")
    channel = _text(row, "channel", f"{what}: the input channel")
    if channel and channels and channel not in channels:
        raise InvalidModel(f"{what}: the family has no input channel «{channel}»; it has {', '.join(channels)}.")
    return Structure(
        name=_text(row, "name", f"{what}: the name", required=True),
        structure_id=_text(row, "structure_id", f"{what}: the identifier") or str(number),
        color=color_of(_text(row, "color", f"{what}: the colour")),
        structure_type=_number(row, "type", f"{what}: the type", UINT32),
        fma_code=_number(row, "fma_code", f"{what}: the FMA code", UINT32),
        input_channel_id=channel or (channels[0] if channels else ""),
    )


def _rows(fields: Mapping[str, Any], name: str) -> list[Any]:
    rows = fields.get(name) or []
    if not isinstance(rows, list) or len(rows) > MOST_STRUCTURES:
        raise InvalidModel(f"The {name.replace('_', ' ')} cannot be read, or are more than {MOST_STRUCTURES}.")
    return rows


def _text(fields: Mapping[str, Any], name: str, label: str, *, required: bool = False) -> str:
    value = fields.get(name)
    text = "" if value is None else str(value).strip()
    if len(text) > MOST_CHARACTERS:
        raise InvalidModel(f"{label} is longer than {MOST_CHARACTERS} characters; shorten it.")
    if "\x00" in text or any(ord(character) in SURROGATES for character in text):
        raise InvalidModel(f"{label} holds a character that cannot be stored; type it again.")
    if required and not text:
        raise InvalidModel(f"{label} is missing; fill it in.")
    return text


def _number(fields: Mapping[str, Any], name: str, label: str, most: int) -> int:
    text = str(fields.get(name) if fields.get(name) is not None else "").strip()
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and int(text) <= most):
        raise InvalidModel(f"{label} is «{text[:40]}»; write a whole number from 0 to {most}.")
    return int(text)
