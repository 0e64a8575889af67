"""Results: one mask per structure, labelled in the order of the model version."""

import json

import numpy as np
import pytest

from services.core.catalogue import Color, ModelVersion, Structure
from services.core.errors import MalformedMessage, NotGzip, VoxelCountMismatch
from services.core.volumes import Mask, Shape
from services.core.wire._pb import Model_pb2 as pb
from services.core.wire._pb import Primitives3D_pb2 as primitives
from services.core.wire.fields import Encoding
from services.core.wire.model_output import decode_model_output, encode_model_output, transcode_model_output
from services.core.wire.voxels import MASK_LEVEL, deflate
from tests.core.messages import wire

VERSION = ModelVersion(
    model_id="Lungs é 2",
    major=3,
    minor=14,
    language_code="en-GB",
    structures=(
        Structure("Left", structure_id="L", color=Color(1, 2, 255), structure_type=1, fma_code=7, input_channel_id="1"),
        Structure("Right"),
    ),
)
MASKS = tuple(
    Mask.from_nonzero(np.random.default_rng(seed).integers(0, 2, shape))
    for seed, shape in ((1, (2, 3, 4)), (2, (1, 5, 6)))
)


def deflated(masks: tuple[Mask, ...]) -> list[tuple[Shape, bytes]]:
    return [(mask.shape, deflate(mask.voxels, MASK_LEVEL)) for mask in masks]


def output_of(volume: primitives.VolumeData3D) -> bytes:
    return wire(pb.ModelOutput(Channels=[pb.ModelOutputChannel(Volume=volume)]))


def test_a_result_survives() -> None:
    output = decode_model_output(encode_model_output(VERSION, deflated(MASKS)))
    assert (output.model_id, output.version, output.language_code) == ("Lungs é 2", "3.14", "en-GB")
    assert [channel.structure for channel in output.channels] == list(VERSION.structures)
    for channel, mask in zip(output.channels, MASKS, strict=True):
        np.testing.assert_array_equal(channel.mask.voxels, mask.voxels)
        assert channel.mask.voxels.dtype == np.uint8


def test_a_result_is_what_the_contract_says() -> None:
    message = pb.ModelOutput.FromString(encode_model_output(VERSION, deflated(MASKS)))
    assert message.ProcesserVersion == "3.14"
    volume = message.Channels[0].Volume
    assert (volume.Width, volume.Height, volume.Depth) == (4, 3, 2)
    assert volume.DataType == primitives.VolumeData3D.Byte
    assert volume.CompressionMethod == primitives.VolumeData3D.Gzip
    assert volume.Data.startswith(b"\x1f\x8b")
    assert not message.Channels[1].Structure.HasField("Color")


def test_a_result_without_structures_is_one() -> None:
    output = decode_model_output(encode_model_output(ModelVersion("v"), []))
    assert (output.version, output.channels) == ("0.0", ())


@pytest.mark.parametrize("count", [1, 3])
def test_masks_must_match_the_structures(count: int) -> None:
    with pytest.raises(ValueError, match="zip"):
        encode_model_output(VERSION, deflated((MASKS * 2)[:count]))


def test_the_same_result_in_json() -> None:
    data = encode_model_output(VERSION, deflated(MASKS))
    assert transcode_model_output(data, Encoding.PROTOBUF) == data
    document = json.loads(transcode_model_output(data, Encoding.JSON))
    assert document["ModelID"] == "Lungs é 2"
    assert document["Channels"][0]["Volume"]["DataType"] == "Byte"
    assert document["Channels"][0]["Structure"]["Color"] == {"R": 1, "G": 2, "B": 255}


@pytest.mark.parametrize(
    ("volume", "error"),
    [
        (primitives.VolumeData3D(Width=2, Height=1, Depth=1, Data=b"nonsense"), NotGzip),
        (primitives.VolumeData3D(Width=2, Height=1, Depth=1), NotGzip),
        (
            primitives.VolumeData3D(Width=2, Height=1, Depth=1, Data=deflate(np.zeros(3, np.uint8), 1)),
            VoxelCountMismatch,
        ),
        (primitives.VolumeData3D(Width=2**32 - 1, Height=2**32 - 1, Depth=2**32 - 1), MalformedMessage),
        (primitives.VolumeData3D(Width=11, Height=1, Depth=1), MalformedMessage),
    ],
)
def test_a_mask_that_is_none_is_refused_by_the_client(volume: primitives.VolumeData3D, error: type[Exception]) -> None:
    with pytest.raises(error):
        decode_model_output(output_of(volume), most_voxels=10)


def test_an_answer_that_is_no_result_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match="ModelOutput"):
        decode_model_output(b"<html>bad gateway</html>")
