"""Whether a request can be segmented by the model it names. Everything here needs only the request's description."""

import math
from collections.abc import Iterator

from services.core.catalogue import CatalogueEntry, ChannelConstraints, channel_order
from services.core.errors import InvalidModelInput
from services.core.settings import ConstraintPolicy
from services.core.volumes import Vector
from services.core.wire.model_input import GZIP, INT16, ModelInput, SubmittedVolume

TOLERANCE = 1e-3
"""Spacing and dimensions travel through text and floats; a thousandth off is not another grid."""


def check_volumes(model_input: ModelInput, most_voxels: int) -> None:
    """Check what holds for every model.

    Raises:
        InvalidModelInput: no channel, a side of zero, a size over the limit, or voxels in another form.
    """
    if not model_input.channels:
        raise InvalidModelInput("The request has no channel; send one volume for each channel of the model.")
    for volume in model_input.channels:
        name = f"The volume of channel «{volume.channel_id}»"
        if 0 in volume.shape:
            raise InvalidModelInput(
                f"{name} is {volume.width}×{volume.height}×{volume.depth} voxels; every side must be at least 1."
            )
        if volume.voxel_count > most_voxels:
            raise InvalidModelInput(
                f"{name} declares {volume.width}×{volume.height}×{volume.depth} voxels, over this server's limit "
                f"of {most_voxels}; resample or crop it."
            )
        if volume.data_type != INT16:
            raise InvalidModelInput(f"{name} has DataType {volume.data_type}; send LittleEndianSignedInt16 (0).")
        if volume.compression != GZIP:
            raise InvalidModelInput(f"{name} has CompressionMethod {volume.compression}; send Gzip (0).")


def check_for_model(model_input: ModelInput, entry: CatalogueEntry, policy: ConstraintPolicy) -> str:
    """Check what holds for this model; returns what was noticed and let pass, for the job's record.

    Raises:
        InvalidModelInput: channels do not match, or constraints are not met and the policy rejects that.
    """
    order = channel_order(entry.input_channels, [volume.channel_id for volume in model_input.channels])
    if policy is ConstraintPolicy.IGNORE:
        return ""
    remarks = [
        f"Channel «{channel.channel_id}»: {remark}"
        for channel, position in zip(entry.input_channels, order, strict=False)
        if channel.constraints is not None
        for remark in _outside(model_input.channels[position], channel.constraints)
    ]
    if remarks and policy is ConstraintPolicy.REJECT:
        raise InvalidModelInput(f"The model's constraints are not met: {'; '.join(remarks)}. Resample the volume.")
    return "; ".join(remarks)


def _outside(volume: SubmittedVolume, constraints: ChannelConstraints) -> Iterator[str]:
    dimensions = (float(volume.width), float(volume.height), float(volume.depth))
    yield from _range("spacing in mm", volume.geometry.spacing, constraints.spacing_min, constraints.spacing_max)
    yield from _range("dimensions in pixels", dimensions, constraints.dimensions_min, constraints.dimensions_max)


def _range(what: str, value: Vector, least: Vector | None, most: Vector | None) -> Iterator[str]:
    """Zero in a constraint says nothing: proto3 cannot tell it from absent."""
    too_small = least is not None and any(
        bound and v < bound and not math.isclose(v, bound, rel_tol=TOLERANCE)
        for v, bound in zip(value, least, strict=True)
    )
    too_large = most is not None and any(
        bound and v > bound and not math.isclose(v, bound, rel_tol=TOLERANCE)
        for v, bound in zip(value, most, strict=True)
    )
    if too_small or too_large:
        yield f"{what} {_words(value)} outside {_words(least)} to {_words(most)}"


def _words(vector: Vector | None) -> str:
    return "any" if vector is None else "×".join(f"{component:g}" for component in vector)
