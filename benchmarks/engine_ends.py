"""What the engine's benchmark begins and ends with: a workstation's scan decoded, masks encoded for the wire."""

import gzip
import time
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from services.worker.masks import Masks, plane_count

try:
    from services.core.wire.voxels import MASK_LEVEL, deflate_pieces, inflate_into

    CODEC = "isal"
except ModuleNotFoundError:
    CODEC = "zlib"

GZIP_LEVEL = 6
"""What .NET's GZipStream, and so a workstation, compresses with."""


def scan(shape: tuple[int, ...]) -> bytes:
    """A volume like a CT's, as a workstation compresses it: air, a smooth body, and the scanner's noise."""
    rng = np.random.default_rng(0)
    z, y, x = np.ogrid[tuple(slice(-1, 1, length * 1j) for length in shape)]
    body = x**2 + (y / 0.7) ** 2 + 0 * z < 0.8
    voxels = np.where(body, 40 + 200 * np.sin(9 * x) * np.cos(7 * y) * np.cos(5 * z), -1000.0)
    voxels = np.where(body, voxels + rng.normal(0, 12, shape), voxels)
    return gzip.compress(voxels.astype("<i2").tobytes(), GZIP_LEVEL)


def decode(compressed: bytes, voxels: NDArray[np.int16]) -> None:
    if CODEC == "isal":
        inflate_into(memoryview(compressed), voxels)
    else:
        voxels[...] = np.frombuffer(gzip.decompress(compressed), "<i2").reshape(voxels.shape)


def encode(slabs: Iterator[NDArray[np.uint8]]) -> bytes:
    if CODEC == "isal":
        return deflate_pieces(slabs, MASK_LEVEL)
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join([*(compressor.compress(slab.data) for slab in slabs), compressor.flush()])


def encoding(masks: Masks) -> float:
    """Seconds that the wire's form of all of them takes."""
    started = time.perf_counter()
    masks.encoded(encode)
    return time.perf_counter() - started


def encoding_of_shapes(shape: tuple[int, ...], count: int) -> float:
    """The same for `count` ellipsoids, seven to a row, as a trained network finds: the one here draws noise."""
    masks = Masks([np.zeros((plane_count(count), *shape), np.uint8)], [0] * count)
    z, y, x = np.ogrid[tuple(slice(-1, 1, length * 1j) for length in shape)]
    for structure in range(count):
        row, column = divmod(structure, 7)
        inside = ((x - column / 4 + 0.75) / 0.12) ** 2 + ((y - row + 0.5) / 0.4) ** 2 + (z / 0.6) ** 2 < 1
        masks.put(structure, inside)
    return encoding(masks)
