"""ModelInput: read without holding the voxels, and written.

A request is tens of megabytes of compressed voxels around a few hundred bytes of message. `decode_model_input`
walks the encoded message (https://protobuf.dev/programming-guides/encoding/), notes where each channel's
`Data` lies, and gives only the rest to the parser. The voxels stay where they are: in the mapped file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from services.core.errors import InvalidModelInput, MalformedMessage
from services.core.volumes import Geometry, Shape, Vector, Volume
from services.core.wire._pb import Model_pb2 as pb
from services.core.wire._pb import Primitives3D_pb2 as primitives
from services.core.wire.fields import parse, text, vector_to
from services.core.wire.voxels import VOLUME_LEVEL, deflate

MOST_CHANNELS = 64
"""Far above any model's; a request with more is an attack or a mistake, and ends here."""
MOST_DESCRIPTION_BYTES = 1 << 20
"""Everything of a request that is not voxel data."""
MOST_FIELDS = 100_000
"""Bounds the time a hostile message of tiny fields can take."""

INT16 = primitives.VolumeData3D.LittleEndianSignedInt16
GZIP = primitives.VolumeData3D.Gzip

_PATH_TO_DATA = (2, 2, 2, 4)
"""Field numbers: ModelInput.Channels, .CalibratedVolume, .Volume, .Data."""

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5

_VALUE_BYTES, _KEY_BYTES = 10, 5
"""Longest encodings that the parser takes of a value of 64 bits, and of a key or a length of 32."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where bytes lie in a buffer."""

    start: int
    length: int


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
    walk = _Walk(buffer)
    description, spans = walk.strip()
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


@dataclass(slots=True)
class _Walk:
    """One pass over an encoded ModelInput that copies everything but the voxel data."""

    buffer: memoryview
    fields: int = 0
    description_bytes: int = 0
    spans: list[Span] = field(default_factory=list)

    def strip(self) -> tuple[bytes, list[Span]]:
        """The message without its `Data` fields, and one span per channel, in order."""
        description = bytearray()
        for number, wire_type, key_at, value_at, end in self._fields(0, len(self.buffer)):
            if number == _PATH_TO_DATA[0] and wire_type == _LENGTH_DELIMITED:
                if len(self.spans) == MOST_CHANNELS:
                    raise InvalidModelInput(
                        f"The request has more than {MOST_CHANNELS} channels; send one volume for each of the model's."
                    )
                channel, span = self._without_data(value_at, end, 1)
                self.spans.append(span or Span(value_at, 0))
                description += _length_delimited(number, channel)
            else:
                description += self._copy(key_at, end)
        return bytes(description), self.spans

    def _without_data(self, start: int, end: int, level: int) -> tuple[bytes, Span | None]:
        """The embedded message in [start, end) without its data. Repeated singular fields merge, the last data wins."""
        kept = bytearray()
        span = None
        for number, wire_type, key_at, value_at, value_end in self._fields(start, end):
            if number != _PATH_TO_DATA[level] or wire_type != _LENGTH_DELIMITED:
                kept += self._copy(key_at, value_end)
            elif level == len(_PATH_TO_DATA) - 1:
                span = Span(value_at, value_end - value_at)
            else:
                inner, inner_span = self._without_data(value_at, value_end, level + 1)
                span = inner_span or span
                kept += _length_delimited(number, inner)
        return bytes(kept), span

    def _copy(self, start: int, end: int) -> memoryview:
        self.description_bytes += end - start
        if self.description_bytes > MOST_DESCRIPTION_BYTES:
            raise InvalidModelInput(
                f"The request carries more than {MOST_DESCRIPTION_BYTES} bytes besides its voxel data; "
                "send only the fields of ModelInput."
            )
        return self.buffer[start:end]

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield (number, wire type, key position, value position, end) of each field in [start, end)."""
        position = start
        while position < end:
            self.fields += 1
            if self.fields > MOST_FIELDS:
                raise InvalidModelInput(
                    f"The request has more than {MOST_FIELDS} fields; send only those of ModelInput."
                )
            key_at = position
            key, position = self._varint(position, end, _KEY_BYTES)
            number, wire_type = key >> 3, key & 7
            value_at = position
            if wire_type == _VARINT:
                _, position = self._varint(position, end, _VALUE_BYTES)
            elif wire_type == _FIXED64:
                position += 8
            elif wire_type == _FIXED32:
                position += 4
            elif wire_type == _LENGTH_DELIMITED:
                length, value_at = self._varint(position, end, _KEY_BYTES)
                position = value_at + length
            else:
                raise MalformedMessage(f"The body is not a ModelInput: wire type {wire_type} at byte {key_at}.")
            if position > end:
                raise MalformedMessage(
                    f"The body is cut off: a field at byte {key_at} reaches past the end; send the whole message."
                )
            yield number, wire_type, key_at, value_at, position

    def _varint(self, position: int, end: int, most_bytes: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 7 * most_bytes, 7):
            if position >= end:
                raise MalformedMessage("The body is cut off in the middle of a field; send the whole message.")
            byte = self.buffer[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
        raise MalformedMessage(f"The body is not a ModelInput: an endless number before byte {position}.")


def _length_delimited(number: int, payload: bytes) -> bytes:
    return _encode_varint(number << 3 | _LENGTH_DELIMITED) + _encode_varint(len(payload)) + payload


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
