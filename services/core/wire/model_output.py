"""ModelOutput: one mask per structure, in the order the model version declares them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.core.catalogue import ModelVersion, Structure
from services.core.errors import MalformedMessage
from services.core.volumes import Mask, Shape
from services.core.wire._pb import Model_pb2 as pb
from services.core.wire._pb import Primitives3D_pb2 as primitives
from services.core.wire.catalogue import structure_from, structure_to
from services.core.wire.fields import Encoding, parse, serialize
from services.core.wire.voxel_spans import Layout, Span, without_voxels
from services.core.wire.voxels import inflate_into

_LAYOUT = Layout(
    message="ModelOutput",
    called="result",
    path_to_data=(1, 2, 4),  # Channels, Volume, Data
    # Bounds against a file that is no result at all: far above any model's structures, of names of any length.
    most_channels=10_000,
    most_description_bytes=16 << 20,
    most_fields=1_000_000,
)


@dataclass(frozen=True, slots=True)
class OutputChannel:
    """The mask of one structure."""

    structure: Structure
    mask: Mask


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """A result as a client reads it."""

    model_id: str
    version: str
    language_code: str
    channels: tuple[OutputChannel, ...]


@dataclass(frozen=True, slots=True)
class CompressedMask:
    """The mask of one structure where it lies in a result, still compressed: bytes of 0 and 1 in C order."""

    structure: Structure
    shape: Shape
    """(depth, height, width)."""
    data: Span


def encode_model_output(version: ModelVersion, masks: Sequence[tuple[Shape, bytes]]) -> bytes:
    """The ModelOutput of `version`.

    Args:
        version: its structures label the masks, in order.
        masks: per structure its (depth, height, width) and its voxels as `voxels.deflate` made them.
    """
    message = pb.ModelOutput(
        ModelID=version.model_id,
        ProcesserVersion=f"{version.major}.{version.minor}",
        LanguageCode=version.language_code,
    )
    for structure, ((depth, height, width), data) in zip(version.structures, masks, strict=True):
        message.Channels.add(
            Structure=structure_to(structure),
            Volume=primitives.VolumeData3D(
                Width=width,
                Height=height,
                Depth=depth,
                Data=data,
                DataType=primitives.VolumeData3D.Byte,
                CompressionMethod=primitives.VolumeData3D.Gzip,
            ),
        )
    return message.SerializeToString()


def transcode_model_output(data: bytes, encoding: Encoding) -> bytes:
    """A serialized ModelOutput in another encoding."""
    return serialize(parse(pb.ModelOutput, data), encoding)


def locate_masks(buffer: memoryview) -> tuple[CompressedMask, ...]:
    """The masks of the serialized ModelOutput in `buffer`, in order; spans are positions in it.

    Raises:
        MalformedMessage: it does not parse.
        InvalidModelInput: more channels or more description than any result has.
    """
    description, spans = without_voxels(buffer, _LAYOUT)
    message = parse(pb.ModelOutput, description)
    return tuple(
        CompressedMask(
            structure_from(channel.Structure),
            (channel.Volume.Depth, channel.Volume.Height, channel.Volume.Width),
            span,
        )
        for channel, span in zip(message.Channels, spans, strict=True)
    )


def decode_model_output(data: bytes, *, most_voxels: int = 2**31) -> ModelOutput:
    """A serialized ModelOutput with its masks inflated.

    Raises:
        MalformedMessage: it does not parse, or declares masks of over `most_voxels` voxels.
        NotGzip, VoxelCountMismatch: a mask that does not inflate to its declared size.
    """
    message = parse(pb.ModelOutput, data)
    channels = []
    for channel in message.Channels:
        volume = channel.Volume
        shape = (volume.Depth, volume.Height, volume.Width)
        if volume.Depth * volume.Height * volume.Width > most_voxels:
            raise MalformedMessage(f"The result declares a mask of {shape} voxels, over the limit of {most_voxels}.")
        voxels = np.empty(shape, np.uint8)
        inflate_into(memoryview(volume.Data), voxels)
        channels.append(OutputChannel(structure_from(channel.Structure), Mask(voxels)))
    return ModelOutput(message.ModelID, message.ProcesserVersion, message.LanguageCode, tuple(channels))
