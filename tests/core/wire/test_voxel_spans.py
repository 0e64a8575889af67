"""Masks are found in a result without being read."""

import numpy as np
import pytest
from hypothesis import given, settings

from services.core.errors import InvalidModelInput, MalformedMessage
from services.core.wire._pb import Model_pb2 as pb
from services.core.wire.catalogue import structure_from
from services.core.wire.model_output import encode_model_output, locate_masks
from services.core.wire.voxels import inflate_into
from tests.core.messages import messages, wire
from tests.core.wire.test_model_output import MASKS, VERSION, deflated


def test_each_mask_is_found_where_it_lies() -> None:
    result = memoryview(encode_model_output(VERSION, deflated(MASKS)))
    found = locate_masks(result)
    assert [mask.structure for mask in found] == list(VERSION.structures)
    for mask, expected in zip(found, MASKS, strict=True):
        voxels = np.empty(mask.shape, np.uint8)
        inflate_into(result[mask.data.start : mask.data.start + mask.data.length], voxels)
        np.testing.assert_array_equal(voxels, expected.voxels)


@given(messages(pb.ModelOutput))
@settings(deadline=None)
def test_any_result_reads_as_the_parser_reads_it(message: pb.ModelOutput) -> None:
    buffer = memoryview(wire(message))
    found = locate_masks(buffer)
    assert [mask.structure for mask in found] == [structure_from(channel.Structure) for channel in message.Channels]
    for mask, channel in zip(found, message.Channels, strict=True):
        assert bytes(buffer[mask.data.start : mask.data.start + mask.data.length]) == channel.Volume.Data
        assert mask.shape == (channel.Volume.Depth, channel.Volume.Height, channel.Volume.Width)


def test_what_is_no_result_is_refused() -> None:
    result = encode_model_output(VERSION, deflated(MASKS))
    with pytest.raises(MalformedMessage, match="cut off"):
        locate_masks(memoryview(result[:-1]))
    with pytest.raises(InvalidModelInput, match="more than 10000 channels"):
        locate_masks(memoryview(b"\x0a\x00" * 10_001))
