"""Whom a family is for and what it takes, as forms hold it: body parts, gender, input channels with their constraints.

What a family has already and this version has no name for may stay: the wire's enumerations are open.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from services.api.console.form_values import choice_of, choices_of, row_of, rows_of, text_of, vector_of
from services.core.catalogue import ChannelConstraints, InputChannel, PatientConstraints
from services.core.errors import InvalidModel
from services.core.volumes import Vector
from services.core.wire.enumerations import BODY_PARTS, GENDERS, MODALITIES, name_of

MOST_CHANNELS = 32
MOST_CHANNEL_CHARACTERS = 200
MOST_SPACING_MM = 1000.0
MOST_PIXELS = 100_000.0
NO_PATIENTS = PatientConstraints()
NO_CONSTRAINTS = ChannelConstraints()


def read_patients(fields: Mapping[str, Any], stored: PatientConstraints | None = None) -> PatientConstraints:
    """Body parts and gender.

    Raises:
        InvalidModel: one is unknown, or there twice.
    """
    earlier = stored or NO_PATIENTS
    return PatientConstraints(
        body_parts=choices_of(fields, "body_parts", "A body part", {*BODY_PARTS, *earlier.body_parts}),
        gender=choice_of(fields, "gender", "The gender", {*GENDERS, earlier.gender}),
    )


def read_channels(fields: Mapping[str, Any], stored: Sequence[InputChannel] = ()) -> tuple[InputChannel, ...]:
    """Input channels, in their order.

    Raises:
        InvalidModel: there is none, one has no name or that of another, or a range that nothing is in.
    """
    earlier = {channel.channel_id: channel.constraints for channel in stored}
    channels = tuple(
        _channel(number, row_of(row, f"Input channel {number}"), earlier)
        for number, row in enumerate(rows_of(fields, "channels"), start=1)
    )
    if not channels:
        raise InvalidModel("The model needs an input channel; add one and name it, such as CT.")
    if len(channels) > MOST_CHANNELS:
        raise InvalidModel(f"There are {len(channels)} input channels; a model takes {MOST_CHANNELS} at most.")
    names = [channel.channel_id for channel in channels]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidModel(f"The input channel «{twice}» is named twice; name each once.")
    return channels


def channel_fields(channel: InputChannel) -> dict[str, Any]:
    """The channel as the form's fields."""
    constraints = channel.constraints or NO_CONSTRAINTS
    return {
        "channel_id": channel.channel_id,
        "modalities": list(constraints.accepted_modalities),
        "spacing_min": _typed(constraints.spacing_min),
        "spacing_max": _typed(constraints.spacing_max),
        "dimensions_min": _typed(constraints.dimensions_min),
        "dimensions_max": _typed(constraints.dimensions_max),
        "original_data_required": constraints.original_data_required,
        "is_axial": constraints.is_axial,
    }


def channel_in_words(channel: InputChannel) -> str:
    """The channel on one line."""
    constraints = channel.constraints or NO_CONSTRAINTS
    words = [name_of(MODALITIES, code) for code in constraints.accepted_modalities]
    ranges = (
        ("spacing in mm", constraints.spacing_min, constraints.spacing_max),
        ("size in pixels", constraints.dimensions_min, constraints.dimensions_max),
    )
    for label, least, most in ranges:
        words += [f"{label} from {_typed(least)}"] if least is not None else []
        words += [f"{label} up to {_typed(most)}"] if most is not None else []
    words += ["axial"] if constraints.is_axial else []
    words += ["original data"] if constraints.original_data_required else []
    return f"{channel.channel_id} ({', '.join(words)})" if words else channel.channel_id


def patients_in_words(patients: PatientConstraints | None) -> str:
    """Body parts and gender on one line; empty where nothing is said of them."""
    if patients is None:
        return ""
    parts = [name_of(BODY_PARTS, code) for code in patients.body_parts]
    return ", ".join([f"gender {name_of(GENDERS, patients.gender)}", *parts])


def _channel(number: int, row: Mapping[str, Any], earlier: Mapping[str, ChannelConstraints | None]) -> InputChannel:
    what = f"Input channel {number}"
    name = text_of(row, "channel_id", f"{what}: the name", required=True, most=MOST_CHANNEL_CHARACTERS)
    before = earlier.get(name)
    known = {*MODALITIES, *(before or NO_CONSTRAINTS).accepted_modalities}
    constraints = ChannelConstraints(
        accepted_modalities=choices_of(row, "modalities", f"{what}: a modality", known),
        spacing_min=vector_of(row, "spacing_min", f"{what}: the least spacing", MOST_SPACING_MM),
        spacing_max=vector_of(row, "spacing_max", f"{what}: the largest spacing", MOST_SPACING_MM),
        dimensions_min=vector_of(row, "dimensions_min", f"{what}: the least size", MOST_PIXELS, whole=True),
        dimensions_max=vector_of(row, "dimensions_max", f"{what}: the largest size", MOST_PIXELS, whole=True),
        original_data_required=row.get("original_data_required") is True,
        is_axial=row.get("is_axial") is True,
    )
    _check_range(f"{what}: the spacing", constraints.spacing_min, constraints.spacing_max)
    _check_range(f"{what}: the size", constraints.dimensions_min, constraints.dimensions_max)
    # An absent message and an empty one are two things; nothing here changes one into the other.
    return InputChannel(name, None if constraints == NO_CONSTRAINTS and before is None else constraints)


def _check_range(label: str, least: Vector | None, most: Vector | None) -> None:
    if least is not None and most is not None and any(low > high for low, high in zip(least, most, strict=True)):
        raise InvalidModel(f"{label} is at least {_typed(least)} and at most {_typed(most)}; nothing is in that range.")


def _typed(vector: Vector | None) -> str:
    return "" if vector is None else " × ".join(f"{part:.10g}" for part in vector)
