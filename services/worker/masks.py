"""The masks of one job. Structures on one grid share its bytes, a bit each, so that many cost little memory."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.volumes import Shape
from services.worker.thread_limit import thread_count

Box = tuple[slice, slice, slice]
"""Part of a grid: ranges of depth, height and width, with both ends given."""

BITS = 8

SLAB_BYTES = 2**20
"""Of a mask at a time, where it is read slab by slab."""

MOST_THREADS = 8
"""That encode masks: more would only wait for the memory."""


def plane_count(structures: int) -> int:
    """How many bytes a voxel takes for that many structures."""
    return -(-structures // BITS)


class Masks:
    """One mask per structure, in declared order, each on the grid of its input channel.

    `planes[channel]`: uint8, shape (planes, depth, height, width); the structures of that channel are its bits, in
    their order, eight to a plane, the lowest first.
    """

    def __init__(self, planes: Sequence[NDArray[np.uint8]], channel_of: Sequence[int]) -> None:
        """`channel_of`: per structure, the position of its channel in `planes`."""
        self.planes = planes
        self.channel_of = tuple(channel_of)
        counts = [0] * len(planes)
        self._place: list[tuple[int, int]] = []
        for channel in self.channel_of:
            self._place.append(divmod(counts[channel], BITS))
            counts[channel] += 1

    def __len__(self) -> int:
        return len(self.channel_of)

    def shape(self, structure: int) -> Shape:
        """(depth, height, width) of that structure's mask."""
        _, depth, height, width = self.planes[self.channel_of[structure]].shape
        return depth, height, width

    def on_channel(self, channel: int) -> list[int]:
        """The structures whose masks lie on that channel's grid, in the order of their bits."""
        return [structure for structure, its in enumerate(self.channel_of) if its == channel]

    def put(self, structure: int, mask: NDArray[Any], box: Box | None = None) -> None:
        """Make the structure's mask, or the part of it in `box`, 1 where `mask` is not zero, and 0 elsewhere.

        Raises ValueError when `mask` has another shape than that part.
        """
        part, bit = self._part(structure, box)
        if mask.shape != part.shape:
            raise ValueError(f"a mask of shape {mask.shape} for a part of shape {part.shape}")
        np.bitwise_and(part, np.uint8(~(1 << bit) & 0xFF), out=part)
        bits = np.not_equal(mask, 0).view(np.uint8)
        np.bitwise_or(part, np.left_shift(bits, np.uint8(bit), out=bits), out=part)

    def get(self, structure: int, box: Box | None = None) -> NDArray[np.uint8]:
        """The structure's mask, or the part of it in `box`, as a copy of 0 and 1."""
        part, bit = self._part(structure, box)
        shifted = np.right_shift(part, np.uint8(bit))
        return np.bitwise_and(shifted, np.uint8(1), out=shifted)

    def slabs(self, structure: int) -> Iterator[NDArray[np.uint8]]:
        """The structure's mask, whole slices at a time, as 0 and 1; each is to be used before the next takes its place.

        What is made of them never leaves the processor's cache, and takes no memory of a mask's size.
        """
        plane, bit = self._part(structure, None)
        depth, height, width = plane.shape
        step = max(1, SLAB_BYTES // max(1, height * width))
        room = np.empty((min(step, depth), height, width), np.uint8)
        for first in range(0, depth, step):
            part = plane[first : first + step]
            slab = room[: len(part)]
            np.bitwise_and(part, np.uint8(1 << bit), out=slab)
            np.not_equal(slab, 0, out=slab.view(np.bool_))
            yield slab

    def encoded(self, encode: Callable[[Iterator[NDArray[np.uint8]]], bytes]) -> list[bytes]:
        """What `encode` makes of each structure's slabs, in their order; several at once, on threads of their own."""
        with ThreadPoolExecutor(min(MOST_THREADS, thread_count()), thread_name_prefix="encode") as threads:
            return list(threads.map(lambda structure: encode(self.slabs(structure)), range(len(self))))

    def _part(self, structure: int, box: Box | None) -> tuple[NDArray[np.uint8], int]:
        plane, bit = self._place[structure]
        whole = self.planes[self.channel_of[structure]][plane]
        return (whole if box is None else whole[box]), bit
