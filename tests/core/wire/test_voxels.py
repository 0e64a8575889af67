"""gzip streams into arrays: whole ones of every maker, and every way in which one can be wrong."""

import gzip
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services.core.errors import NotGzip, VoxelCountMismatch
from services.core.wire.voxels import MASK_LEVEL, VOLUME_LEVEL, deflate, deflate_pieces, inflate_into

SHAPE = (3, 40, 50)
NOISE = np.random.default_rng(7).integers(-1000, 2000, SHAPE).astype(np.int16)
MASK = (NOISE > 500).astype(np.uint8)
TRAILER_BYTES = 8
HEADER_BYTES = 10


def inflated(data: bytes, like: NDArray[Any] = NOISE) -> NDArray[Any]:
    target = np.empty(like.shape, like.dtype.newbyteorder("<"))
    inflate_into(memoryview(data), target)
    return target


def gzip_of(data: bytes, header: bytes) -> bytes:
    """A gzip member with a header of one's own."""
    deflater = zlib.compressobj(wbits=-15)
    trailer = zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    return header + deflater.compress(data) + deflater.flush() + trailer


@pytest.mark.parametrize("level", [0, MASK_LEVEL, VOLUME_LEVEL, 3])
@pytest.mark.parametrize("voxels", [NOISE, MASK, np.zeros((0, 4, 4), np.int16)], ids=["int16", "uint8", "empty"])
def test_voxels_survive(voxels: NDArray[Any], level: int) -> None:
    np.testing.assert_array_equal(inflated(deflate(voxels, level), voxels), voxels)


@pytest.mark.parametrize(
    "voxels",
    [NOISE.astype(">i2"), NOISE[:, ::2, ::-1], NOISE.transpose(2, 0, 1), np.asfortranarray(NOISE)],
    ids=["big-endian", "strided", "transposed", "column-major"],
)
def test_voxels_of_any_layout_are_written_little_endian_in_c_order(voxels: NDArray[Any]) -> None:
    data = gzip.decompress(deflate(voxels, VOLUME_LEVEL))
    assert data == np.ascontiguousarray(voxels).astype("<i2").tobytes()


def test_pieces_make_one_stream_and_may_share_their_memory() -> None:
    room = np.empty((1, *NOISE.shape[1:]), NOISE.dtype)

    def pieces() -> Iterator[NDArray[Any]]:
        for part in NOISE:
            room[0] = part
            yield room

    stream = deflate_pieces(pieces(), VOLUME_LEVEL)
    np.testing.assert_array_equal(inflated(stream), NOISE)
    # and a single member, which every reader takes
    reader = zlib.decompressobj(wbits=31)
    assert len(reader.decompress(stream)) == NOISE.nbytes
    assert reader.eof
    assert not reader.unused_data


@pytest.mark.parametrize("level", range(10))
def test_streams_of_every_level_of_zlib_are_read(level: int) -> None:
    np.testing.assert_array_equal(inflated(gzip.compress(NOISE.tobytes(), level)), NOISE)


@pytest.mark.parametrize(
    "header",
    [
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\x00",
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x0a",
        b"\x1f\x8b\x08\x08\x01\x02\x03\x04\x02\x03scan.raw\x00",
        b"\x1f\x8b\x08\x14\x00\x00\x00\x00\x00\xff\x03\x00abccomment\x00",
    ],
    ids=["dotnet-framework", "dotnet", "file-name", "extra-and-comment"],
)
def test_headers_of_other_makers_are_read(header: bytes) -> None:
    np.testing.assert_array_equal(inflated(gzip_of(NOISE.tobytes(), header)), NOISE)


def test_a_stream_of_several_members_is_one() -> None:
    data = NOISE.tobytes()
    parts = (data[:1], data[1:1], data[1:5000], data[5000:])
    np.testing.assert_array_equal(inflated(b"".join(gzip.compress(part) for part in parts)), NOISE)


@pytest.mark.parametrize("padding", [1, 7, 512])
def test_zeros_behind_the_stream_are_padding(padding: int) -> None:
    np.testing.assert_array_equal(inflated(gzip.compress(NOISE.tobytes()) + bytes(padding)), NOISE)


def test_a_stream_cut_off_anywhere_is_not_gzip() -> None:
    # Given a stream short enough to cut at each byte: in its header, its name, its data, its checksum, its length
    voxels = NOISE[:1, :8]
    header = b"\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x0anamed\x00"
    whole = gzip_of(voxels.tobytes(), header)
    np.testing.assert_array_equal(inflated(whole, voxels), voxels)
    for length in range(len(whole)):
        with pytest.raises(NotGzip):
            inflated(whole[:length], voxels)


def test_a_second_member_that_is_cut_off_is_not_gzip() -> None:
    data = NOISE.tobytes()
    first, second = gzip.compress(data[:500]), gzip.compress(data[500:])
    for length in (2, 5, HEADER_BYTES, len(second) // 2, len(second) - 1):
        with pytest.raises(NotGzip, match="ends early"):
            inflated(first + second[:length])


@pytest.mark.parametrize("bit", [0x01, 0x10, 0x80])
def test_a_damaged_stream_is_never_taken_for_other_voxels(bit: int) -> None:
    voxels = NOISE[:1, :8]
    whole = gzip.compress(voxels.tobytes())
    refused = 0
    for position in range(HEADER_BYTES, len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= bit
        try:
            np.testing.assert_array_equal(inflated(bytes(damaged), voxels), voxels)
        except (NotGzip, VoxelCountMismatch):
            refused += 1
    # Only the bits that fill up the last byte of the data mean nothing.
    assert refused >= len(whole) - HEADER_BYTES - 1


@pytest.mark.parametrize("position", range(-TRAILER_BYTES, 0))
def test_a_wrong_checksum_or_length_is_not_gzip(position: int) -> None:
    damaged = bytearray(gzip.compress(NOISE.tobytes()))
    damaged[position] ^= 1
    with pytest.raises(NotGzip, match="sound"):
        inflated(bytes(damaged))


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 20, b"BZh9", NOISE.tobytes(), zlib.compress(NOISE.tobytes()), b"\x1f\x8b", b"\x1f\x8b\x07" * 9],
)
def test_what_is_not_gzip_is_not_gzip(data: bytes) -> None:
    with pytest.raises(NotGzip):
        inflated(data)


@pytest.mark.parametrize("short_by", [1, 2, 1000, NOISE.nbytes])
def test_too_few_voxels_are_a_mismatch(short_by: int) -> None:
    data = NOISE.tobytes()[: NOISE.nbytes - short_by]
    with pytest.raises(VoxelCountMismatch, match=f"inflates to {len(data)} bytes.* make {NOISE.nbytes}"):
        inflated(gzip.compress(data))


@pytest.mark.parametrize("long_by", [1, 2, 1000])
def test_too_many_voxels_are_a_mismatch(long_by: int) -> None:
    data = NOISE.tobytes() + bytes(long_by)
    with pytest.raises(VoxelCountMismatch, match="more than"):
        inflated(gzip.compress(data))
    with pytest.raises(VoxelCountMismatch, match="more than"):
        inflated(gzip.compress(NOISE.tobytes()) + gzip.compress(bytes(long_by)))


def test_a_bomb_is_not_inflated() -> None:
    # Given a gigabyte of zeros, declared as a small volume; only its start is whole, for nobody should get further
    deflater = zlib.compressobj(wbits=31)
    blocks = [deflater.compress(bytes(1 << 20)) + deflater.flush(zlib.Z_FULL_FLUSH) for _ in range(2)]
    bomb = blocks[0] + blocks[1] * 1023
    target = np.empty((1, 10, 10), np.int16)
    # When it is inflated
    tracemalloc.start()
    try:
        with pytest.raises(VoxelCountMismatch, match="more than the 200 bytes"):
            inflate_into(memoryview(bomb), target)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Then inflation stopped at the declared size
    assert peak_bytes < 2_000_000


def test_inflating_takes_little_memory_beyond_the_target() -> None:
    target = np.empty((64, 512, 512), np.uint8)
    data = memoryview(deflate(np.zeros_like(target), MASK_LEVEL))
    tracemalloc.start()
    try:
        inflate_into(data, target)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < target.nbytes
    assert not target.any()
