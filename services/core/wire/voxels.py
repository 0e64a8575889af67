"""The gzip stream inside VolumeData3D.Data.

ISA-L inflates and deflates several times faster than zlib (https://github.com/intel/isa-l). The declared size is
the bound: inflation stops one byte past it, so that a small upload cannot become a large allocation.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from isal import igzip_lib, isal_zlib
from numpy.typing import NDArray

from services.core.errors import NotGzip, VoxelCountMismatch

_FEED_BYTES = 1 << 16
"""Input handed to the decompressor at once; it copies what it has not used, so small pieces are cheaper."""
_INFLATE_BYTES = 1 << 18
"""Output asked for at once. It stays in the processor's cache on its way to the target, and is all that is held."""
MOST_MEMBERS = 10_000
"""Some compressors write one member per block; empty ones without end would only cost time."""
_GZIP_MAGIC = b"\x1f\x8b"

GZIP_WINDOW_BITS = 31
"""zlib's word for a gzip stream with the largest window (zlib.h, deflateInit2)."""
MASK_LEVEL = 1
"""ISA-L level for masks: they are long runs, which the fastest matching level already shrinks well below 1 %."""
VOLUME_LEVEL = 1
"""ISA-L level for volumes sent by the client."""


MOST_INFLATION = 1032
"""Deflate's own limit (https://zlib.net/zlib_tech.html): no stream inflates to more than this times its length."""
SMALL_BYTES = 1 << 20
"""Below this, memory is not worth a look ahead, and inflating tells more exactly what is wrong."""


def check_declared_size(data: memoryview, declared_bytes: int) -> None:
    """Refuse a declared size that `data` cannot reach, before memory is taken for it.

    Raises:
        NotGzip, VoxelCountMismatch: as `inflate_into` would.
    """
    if declared_bytes <= max(SMALL_BYTES, len(data) * MOST_INFLATION):
        return
    if bytes(data[:2]) != _GZIP_MAGIC:
        raise NotGzip("The voxel data is not a gzip stream; compress it with gzip.")
    raise VoxelCountMismatch(
        f"The voxel data is {len(data)} bytes of gzip, which cannot inflate to the {declared_bytes} bytes that "
        "Width·Height·Depth and the data type make; send as many voxels as declared."
    )


def inflate_into(data: memoryview, target: NDArray[Any]) -> None:
    """Inflate the gzip stream `data` into `target` (C-contiguous), which it must fill exactly.

    Raises:
        NotGzip: not gzip, damaged, or cut off.
        VoxelCountMismatch: a whole stream that inflates to another size than `target`.
    """
    room = target.reshape(-1).view(np.uint8).data
    written = 0
    position = 0
    for _ in range(MOST_MEMBERS):
        consumed, written = _inflate_member(data[position:], room, written)
        position += consumed
        # A stream may consist of several members; anything else behind the last one is padding.
        if bytes(data[position : position + 2]) != _GZIP_MAGIC:
            break
    else:
        raise NotGzip(f"The voxel data consists of more than {MOST_MEMBERS} gzip streams; compress it as one.")
    if written != len(room):
        raise VoxelCountMismatch(
            f"The voxel data inflates to {written} bytes, but Width·Height·Depth and the data type make {len(room)}; "
            "send as many voxels as declared."
        )


def _inflate_member(data: memoryview, room: memoryview, written: int) -> tuple[int, int]:
    """Inflate one gzip member into `room` from `written` on; returns (bytes consumed, bytes written so far)."""
    inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    fed = 0
    while not inflater.eof:
        feed: bytes | memoryview = b""
        if inflater.needs_input:
            if fed == len(data):
                raise NotGzip("The voxel data is a gzip stream that ends early; send it whole.")
            feed = data[fed : fed + _FEED_BYTES]
            fed += len(feed)
        # One byte more than there is room for, so that a longer stream shows at once.
        try:
            piece = inflater.decompress(feed, max_length=min(_INFLATE_BYTES, len(room) - written + 1))
        except igzip_lib.error as error:  # type: ignore[misc] # their stub declares it as an instance
            raise NotGzip(f"The voxel data is not a sound gzip stream ({error}); compress it with gzip.") from error
        if written + len(piece) > len(room):
            raise VoxelCountMismatch(
                f"The voxel data inflates to more than the {len(room)} bytes that Width·Height·Depth and the data "
                "type make; send as many voxels as declared."
            )
        room[written : written + len(piece)] = piece
        written += len(piece)
    return fed - len(inflater.unused_data), written


def deflate(voxels: NDArray[Any], level: int) -> bytes:
    """`voxels` in C order as one gzip stream, little-endian."""
    return deflate_pieces([voxels], level)


def deflate_pieces(pieces: Iterable[NDArray[Any]], level: int) -> bytes:
    """One gzip stream of all their voxels in C order, little-endian. Pieces may have the same memory, in turn."""
    compressor = isal_zlib.compressobj(level, isal_zlib.DEFLATED, GZIP_WINDOW_BITS)
    stream = []
    for piece in pieces:
        little = np.ascontiguousarray(piece, dtype=piece.dtype.newbyteorder("<"))
        stream.append(compressor.compress(little.reshape(-1).view(np.uint8).data))
    stream.append(compressor.flush())
    return b"".join(stream)
