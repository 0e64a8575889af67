"""The codec alone, in a bare loop on one request's bytes: the floor under a segmentation."""

import gzip
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.wire.model_input import decode_model_input
from services.core.wire.voxels import MASK_LEVEL, deflate, inflate_into


def isal_codec(body: bytes, mask: NDArray[np.uint8]) -> dict[str, float]:
    """Seconds of the codec alone, as the server uses it."""
    target = np.empty(mask.shape, np.int16)
    return codec_seconds(lambda: inflate_into(voxel_data(body), target), lambda: deflate(mask, MASK_LEVEL))


def python_gzip_codec(body: bytes, mask: NDArray[np.uint8]) -> dict[str, float]:
    """Seconds of the same with the standard library at its default level."""
    return codec_seconds(lambda: gzip.decompress(voxel_data(body)), lambda: gzip.compress(mask.tobytes()))


def voxel_data(body: bytes) -> memoryview:
    """The compressed voxels inside a request of one channel."""
    [channel] = decode_model_input(memoryview(body)).channels
    return memoryview(body)[channel.data.start : channel.data.start + channel.data.length]


def codec_seconds(inflate: Callable[[], Any], deflate_mask: Callable[[], Any]) -> dict[str, float]:
    """The best of a few tries of each, and their sum."""
    inflating, deflating = _best_of(inflate), _best_of(deflate_mask)
    return {"inflate": inflating, "deflate": deflating, "sum": round(inflating + deflating, 4)}


def _best_of(work: Callable[[], Any], tries: int = 3) -> float:
    seconds = []
    for _ in range(tries):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return round(min(seconds), 4)
