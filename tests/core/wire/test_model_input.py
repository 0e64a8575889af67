"""ModelInput read without its voxels, against the generated parser as the reference."""

import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.errors import InvalidModelInput, MalformedMessage
from services.core.volumes import Geometry, Volume
from services.core.wire._pb import Model_pb2 as pb
from services.core.wire._pb import Primitives3D_pb2 as primitives
from services.core.wire.model_input import (
    MOST_CHANNELS,
    MOST_DESCRIPTION_BYTES,
    MOST_FIELDS,
    ModelInput,
    decode_model_input,
    encode_model_input,
)
from services.core.wire.voxels import inflate_into
from tests.core.messages import finite, messages, wire

UNKNOWN_NUMBER = 777


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def foreign(number: int) -> st.SearchStrategy[bytes]:
    """Fields that the schema does not have: an unknown number, or this one in another wire type."""
    return st.one_of(
        st.binary(max_size=9).map(lambda data: field(UNKNOWN_NUMBER, data)),
        st.integers(0, 2**64 - 1).map(lambda value: varint(number << 3) + varint(value)),
        st.binary(min_size=4, max_size=4).map(lambda data: varint(number << 3 | 5) + data),
        st.binary(min_size=8, max_size=8).map(lambda data: varint(number << 3 | 1) + data),
    )


def pieces(*kinds: st.SearchStrategy[bytes], most: int = 4) -> st.SearchStrategy[bytes]:
    """Any number of these, in any order: singular fields repeat and merge."""
    return st.lists(st.one_of(*kinds), max_size=most).map(b"".join)


raw_volumes = pieces(messages(primitives.VolumeData3D).map(wire), foreign(4), most=3)
raw_calibrated = pieces(
    raw_volumes.map(lambda data: field(2, data)),
    messages(primitives.Transform3D).map(lambda message: field(4, wire(message))),
    foreign(2),
    most=3,
)
raw_channels = pieces(
    messages(pb.ModelInputChannel).map(wire),
    raw_calibrated.map(lambda data: field(2, data)),
    foreign(2),
    most=3,
)
raw_inputs = pieces(
    messages(pb.ModelInput).map(wire),
    raw_channels.map(lambda data: field(2, data)),
    foreign(2),
)


def assert_reads_as_the_parser_does(data: bytes) -> None:
    decoded = decode_model_input(memoryview(data))
    reference = pb.ModelInput.FromString(data)
    assert decoded.client_version == reference.ClientInformation.SoftwareVersion
    assert len(decoded.channels) == len(reference.Channels)
    for channel, expected in zip(decoded.channels, reference.Channels, strict=True):
        volume, transform = expected.CalibratedVolume.Volume, expected.CalibratedVolume.DataTransform
        assert (channel.channel_id, channel.volume_id) == (expected.ChannelID, expected.VolumeID)
        assert channel.shape == (volume.Depth, volume.Height, volume.Width)
        assert channel.voxel_count == volume.Depth * volume.Height * volume.Width
        assert (channel.data_type, channel.compression) == (volume.DataType, volume.CompressionMethod)
        assert data[channel.data.start : channel.data.start + channel.data.length] == volume.Data
        vectors = (transform.Origin, transform.XAxisDirection, transform.VoxelScalingInMM)
        geometry = (channel.geometry.origin, channel.geometry.x_axis, channel.geometry.spacing)
        defaults = (Geometry().origin, Geometry().x_axis, Geometry().spacing)
        for vector, read, default in zip(vectors, geometry, defaults, strict=True):
            given_vector = (vector.X, vector.Y, vector.Z)
            assert read == (given_vector if any(given_vector) else default)


@settings(max_examples=100, deadline=None)
@given(messages(pb.ModelInput))
def test_any_message_reads_as_the_parser_reads_it(message: pb.ModelInput) -> None:
    assert_reads_as_the_parser_does(wire(message))


@settings(max_examples=200, deadline=None)
@given(raw_inputs)
def test_repeated_reordered_and_unknown_fields_merge_as_the_parser_merges_them(data: bytes) -> None:
    assert_reads_as_the_parser_does(data)


def test_the_last_data_of_a_channel_wins_even_when_it_is_empty() -> None:
    for first, last in ((b"one", b"three"), (b"one", b"")):
        volume = b"".join(field(4, data) for data in (first, last))
        assert_reads_as_the_parser_does(field(2, field(2, field(2, volume))))
        assert_reads_as_the_parser_does(field(2, field(2, field(2, field(4, first)) + field(2, field(4, last)))))


def test_a_later_volume_without_data_keeps_the_data_of_the_first() -> None:
    volumes = field(2, field(4, b"kept")) + field(2, varint(1 << 3) + varint(7))
    body = field(2, field(2, volumes))
    (channel,) = decode_model_input(memoryview(body)).channels
    assert body[channel.data.start :][: channel.data.length] == b"kept"
    assert channel.width == 7


def test_a_channel_without_a_volume_has_empty_data() -> None:
    decoded = decode_model_input(memoryview(wire(pb.ModelInput(Channels=[{"ChannelID": "1"}, {"ChannelID": "2"}]))))
    assert [(channel.channel_id, channel.data.length) for channel in decoded.channels] == [("1", 0), ("2", 0)]
    assert decoded.channels[0].shape == (0, 0, 0)


def test_an_empty_body_has_no_channels() -> None:
    assert decode_model_input(memoryview(b"")) == ModelInput("", ())


@settings(max_examples=15, deadline=None)
@given(st.one_of(messages(pb.ModelInput).map(wire), raw_inputs))
def test_every_truncation_reads_as_the_parser_reads_it_or_is_malformed(data: bytes) -> None:
    for length in range(len(data)):
        cut = data[:length]
        try:
            pb.ModelInput.FromString(cut)
        except DecodeError:
            with pytest.raises(MalformedMessage):
                decode_model_input(memoryview(cut))
        else:
            assert_reads_as_the_parser_does(cut)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=60))
def test_random_bytes_are_read_or_refused(data: bytes) -> None:
    read_or_refuse(data)


@settings(max_examples=300, deadline=None)
@given(raw_inputs, st.data())
def test_damaged_messages_are_read_or_refused(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data or b"\x12\x00")
    for _ in range(draw.draw(st.integers(1, 3))):
        damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    read_or_refuse(bytes(damaged))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x12", "cut off in the middle"),
        (b"\x12\x05abc", "reaches past the end"),
        (b"\x12\x80", "cut off in the middle"),
        (b"\x12" + b"\xff" * 4 + b"\x0f", "reaches past the end"),
        (b"\xff" * 11, "endless number"),
        (b"\x13\x14", "wire type 3"),
        (b"\x17", "wire type 7"),
        (b"\x0d\x00", "reaches past the end"),
        (b"\x00\x00", "does not parse"),
        # A key of 33 bits: the parser must not see a channel where the walk saw none.
        (b"\x92\x80\x80\x80\x10\x00", "does not parse"),
        (b"\x0a\x03\x0a\x01\xff", "does not parse"),
        (b"\x12\x02\x12\x05", "reaches past the end"),
        # Past the end of its channel, though not of the body.
        (b"\x12\x03\x0a\x05a" + b"\x78\x00" * 4, "reaches past the end"),
        (b"<html>upload</html>", "wire type 4"),
        # The parser takes five bytes for a key or a length, and so does the walk.
        (b"\x92\x80\x80\x80\x80\x00\x00", "endless number"),
        (b"\x12\x80\x80\x80\x80\x80\x00", "endless number"),
        (wire(pb.ModelInput(Channels=[{"ChannelID": "\0"}])), "ChannelID holds a NUL"),
        (wire(pb.ModelInput(Channels=[{"VolumeID": "\0"}])), "VolumeID holds a NUL"),
        (wire(pb.ModelInput(ClientInformation={"SoftwareVersion": "\0"})), "SoftwareVersion holds a NUL"),
    ],
)
def test_what_is_no_model_input_is_malformed(data: bytes, said: str) -> None:
    with pytest.raises(MalformedMessage, match=said):
        decode_model_input(memoryview(data))


def test_as_many_channels_as_allowed_are_read_and_one_more_is_refused() -> None:
    channel = field(2, b"")
    assert len(decode_model_input(memoryview(channel * MOST_CHANNELS)).channels) == MOST_CHANNELS
    with pytest.raises(InvalidModelInput, match="channels"):
        decode_model_input(memoryview(channel * (MOST_CHANNELS + 1)))


def test_as_many_fields_as_allowed_are_read_and_one_more_is_refused() -> None:
    tiny = varint(15 << 3) + b"\0"
    decode_model_input(memoryview(tiny * MOST_FIELDS))
    with pytest.raises(InvalidModelInput, match="fields"):
        decode_model_input(memoryview(tiny * (MOST_FIELDS + 1)))
    with pytest.raises(InvalidModelInput, match="fields"):
        decode_model_input(memoryview(field(2, field(2, field(2, tiny * MOST_FIELDS)))))


def test_more_description_than_any_request_has_is_refused() -> None:
    # Given room for the keys and lengths around a text
    room = MOST_DESCRIPTION_BYTES - 10
    decoded = decode_model_input(memoryview(field(1, field(1, b"x" * room))))
    assert len(decoded.client_version) == room
    for body in (field(1, field(1, b"x" * MOST_DESCRIPTION_BYTES)), field(2, field(1, b"x" * (room // 2))) * 3):
        with pytest.raises(InvalidModelInput, match="besides its voxel data"):
            decode_model_input(memoryview(body))


def test_voxels_are_no_description_and_are_never_copied() -> None:
    # Given a body of 50 MB, nearly all of it voxels
    voxels = bytes(25_000_000)
    body = memoryview(field(1, field(1, b"v")) + field(2, field(2, field(2, field(4, voxels)))) * 2)
    # When its description is read
    tracemalloc.start()
    try:
        decoded = decode_model_input(body)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Then next to no memory was taken
    assert [channel.data.length for channel in decoded.channels] == [len(voxels)] * 2
    assert peak_bytes < 1_000_000


vectors = st.tuples(finite, finite, finite).filter(any)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.builds(Geometry, vectors, vectors, vectors, vectors, vectors), min_size=1, max_size=3))
def test_volumes_and_their_geometry_survive(geometries: Sequence[Geometry]) -> None:
    # Given volumes of different shapes
    volumes = [
        Volume(
            np.arange(2 * 3 * (i + 1), dtype=np.int16).reshape(2, 3, i + 1) - 5,
            geometry=geometry,
            channel_id=f"c{i}",
            volume_id=f"v{i}",
        )
        for i, geometry in enumerate(geometries)
    ]
    # When they are written and read
    body = memoryview(encode_model_input(volumes, client_version="tests 1.0"))
    decoded = decode_model_input(body)
    # Then everything came through
    assert decoded.client_version == "tests 1.0"
    for volume, channel in zip(volumes, decoded.channels, strict=True):
        assert (channel.channel_id, channel.volume_id) == (volume.channel_id, volume.volume_id)
        assert channel.shape == volume.shape
        assert channel.geometry == volume.geometry
        voxels = np.empty(channel.shape, np.int16)
        inflate_into(body[channel.data.start :][: channel.data.length], voxels)
        np.testing.assert_array_equal(voxels, volume.voxels)


@pytest.mark.parametrize(
    "transform",
    [None, primitives.Transform3D(), primitives.Transform3D(Origin=primitives.Vector3D(), YAxisDirection={"Z": -0.0})],
)
def test_an_all_zero_transform_is_the_identity(transform: primitives.Transform3D | None) -> None:
    message = pb.ModelInput(Channels=[{"CalibratedVolume": primitives.CalibratedVolume3D(DataTransform=transform)}])
    (channel,) = decode_model_input(memoryview(wire(message))).channels
    np.testing.assert_array_equal(channel.geometry.index_to_patient(), np.eye(4))
    assert channel.geometry.voxel_volume_mm3 == 1


def test_an_oblique_transform_maps_indices_to_millimetres() -> None:
    geometry = Geometry(origin=(10, 20, 30), x_axis=(0, 1, 0), y_axis=(-1, 0, 0), z_axis=(0, 0, -1), spacing=(2, 3, 4))
    patient = geometry.index_to_patient() @ (1, 1, 1, 1)
    np.testing.assert_array_equal(patient, (10 - 3, 20 + 2, 30 - 4, 1))
    assert geometry.voxel_volume_mm3 == pytest.approx(24)


def read_or_refuse(data: bytes) -> None:
    try:
        decode_model_input(memoryview(data))
    except (MalformedMessage, InvalidModelInput):
        return
    assert_reads_as_the_parser_does(data)
