"""ModelInput: read without holding the voxels, and written.

A request is tens of megabytes of compressed voxels around a few hundred bytes of message. `decode_model_input`
notes where each channel's `Data` lies, and gives only the rest to the parser. The voxels stay where they are: in the
mapped file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from services.core.volumes import Geometry, Shape, Vector, Volume
from services.core.wire._pb import Model_pb2 as pb
from services.core.wire._pb import Primitives3D_pb2 as primitives
from services.core.wire.fields import parse, text, vector_to
from services.core.wire.voxel_spans import Layout, Span, without_voxels
from services.core.wire.voxels import VOLUME_LEVEL, deflate

MOST_CHANNELS = 64
"""Far above any model's; a request with more is an attack or a mistake, and ends here."""
MOST_DESCRIPTION_BYTES = 1 << 20
"""Everything of a request that is not voxel data."""
MOST_FIELDS = 100_000
"""Bounds the time a hostile message of tiny fields can take."""

INT16 = primitives.VolumeData3D.LittleEndianSignedInt16
GZIP = primitives.VolumeData3D.Gzip

_LAYOUT = Layout(
    message="ModelInput",
    called="request",
    path_to_data=(2, 2, 2, 4),  # Channels, CalibratedVolume, Volume, Data
    most_channels=MOST_CHANNELS,
    most_description_bytes=MOST_DESCRIPTION_BYTES,
    most_fields=MOST_FIELDS,
)


@dataclass(frozen=True, slots=True)
class SubmittedVolume:
    """One channel of a request, its voxels still compressed."""

    channel_id: str
    volume_id: str
    width: int
    height: int
    depth: int
    data_type: int
    compression: int
    geometry: Geometry
    data: Span

    @property
    def shape(self) -> Shape:
        """(depth, height, width)."""
        return self.depth, self.height, self.width

    @property
    def voxel_count(self) -> int:
        """Exact: Python integers do not overflow."""
        return self.width * self.height * self.depth


@dataclass(frozen=True, slots=True)
class ModelInput:
    """A request to segment."""

    client_version: str
    channels: tuple[SubmittedVolume, ...]


def decode_model_input(buffer: memoryview) -> ModelInput:
    """Read the serialized ModelInput in `buffer`; spans in the answer are positions in it.

    Raises:
        MalformedMessage: it does not parse.
        InvalidModelInput: more channels or more description than any request has.
    """
    description, spans = without_voxels(buffer, _LAYOUT)
    message = parse(pb.ModelInput, description)
    return ModelInput(
        client_version=text(message.ClientInformation.SoftwareVersion, "SoftwareVersion"),
        channels=tuple(_submitted(channel, span) for channel, span in zip(message.Channels, spans, strict=True)),
    )


def encode_model_input(volumes: Sequence[Volume], *, client_version: str) -> bytes:
    """The ModelInput message of `volumes`, one channel each, as a workstation sends it."""
    message = pb.ModelInput(ClientInformation=pb.ClientInformation(SoftwareVersion=client_version))
    for volume in volumes:
        depth, height, width = volume.shape
        geometry = volume.geometry
        message.Channels.add(
            ChannelID=volume.channel_id,
            VolumeID=volume.volume_id,
            CalibratedVolume=primitives.CalibratedVolume3D(
                DataTransform=primitives.Transform3D(
                    XAxisDirection=vector_to(geometry.x_axis),
                    YAxisDirection=vector_to(geometry.y_axis),
                    ZAxisDirection=vector_to(geometry.z_axis),
                    VoxelScalingInMM=vector_to(geometry.spacing),
                    Origin=vector_to(geometry.origin),
                ),
                Volume=primitives.VolumeData3D(
                    Width=width,
                    Height=height,
                    Depth=depth,
                    Data=deflate(volume.voxels, VOLUME_LEVEL),
                    DataType=INT16,
                    CompressionMethod=GZIP,
                ),
            ),
        )
    return message.SerializeToString()


def _submitted(channel: pb.ModelInputChannel, data: Span) -> SubmittedVolume:
    volume = channel.CalibratedVolume.Volume
    return SubmittedVolume(
        channel_id=text(channel.ChannelID, "ChannelID"),
        volume_id=text(channel.VolumeID, "VolumeID"),
        width=volume.Width,
        height=volume.Height,
        depth=volume.Depth,
        data_type=volume.DataType,
        compression=volume.CompressionMethod,
        geometry=_geometry(channel.CalibratedVolume.DataTransform),
        data=data,
    )


def _geometry(transform: primitives.Transform3D) -> Geometry:
    """A vector that is absent, or all zero, takes its default: a direction or a spacing of zero maps nothing."""

    def vector(message: primitives.Vector3D, default: Vector) -> Vector:
        value = (message.X, message.Y, message.Z)
        return value if any(value) else default

    default = Geometry()
    return Geometry(
        origin=vector(transform.Origin, default.origin),
        x_axis=vector(transform.XAxisDirection, default.x_axis),
        y_axis=vector(transform.YAxisDirection, default.y_axis),
        z_axis=vector(transform.ZAxisDirection, default.z_axis),
        spacing=vector(transform.VoxelScalingInMM, default.spacing),
    )
