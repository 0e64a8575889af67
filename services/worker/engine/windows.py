"""Sliding-window inference whose scores are given out as soon as no later patch can change them.

MONAI's `sliding_window_inference` holds the scores of the whole volume: for fourteen structures on 512×512×200 voxels
three gigabytes. Here a finished box of scores goes to its decision at once, and only what the next patches overlap is
kept. Patches, their places and their weights are MONAI's (`dense_patch_slices`, `compute_importance_map`), and so are
the results.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.utils.enums import BlendMode
from torch import Tensor

from services.core.model_choices import Blending
from services.core.volumes import Shape
from services.worker.engine.preprocessing import Start
from services.worker.masks import Box

Score = Callable[[Sequence[Start]], Tensor]
"""Scores (patches, outputs, depth, height, width) of the patches that begin there."""


def patch_starts(shape: Shape, patch: Shape, overlap: float) -> tuple[list[int], list[int], list[int]]:
    """Where patches begin along depth, height and width: MONAI's places.

    A grid shorter than the patch has one patch around its middle, which begins before it.
    """
    starts: list[list[int]] = []
    intervals = [max(1, int(length * (1 - overlap))) for length in patch]
    padded = [max(whole, length) for whole, length in zip(shape, patch, strict=True)]
    slices = dense_patch_slices(
        padded, patch, [i if w > p else p for w, p, i in zip(padded, patch, intervals, strict=True)]
    )
    for axis in range(3):
        before = (padded[axis] - shape[axis]) // 2
        starts.append(sorted({places[axis].start - before for places in slices}))
    return starts[0], starts[1], starts[2]


def blended(
    shape: Shape, patch: Shape, overlap: float, blending: Blending, batch: int, score: Score, device: torch.device
) -> Iterator[tuple[Box, Tensor]]:
    """The boxes that make up a grid of `shape`, each with its scores (outputs, depth, height, width) as a float tensor.

    The scores are to be used before the next box is asked for, which takes their place.

    Args:
        score: called with up to `batch` places at a time.
        device: where scores are put together.
    """
    starts = patch_starts(shape, patch, overlap)
    # The longest axis outermost: what is carried over is a plane across the other two.
    axes = sorted(range(3), key=lambda axis: -shape[axis])
    weights = compute_importance_map(
        patch, mode=BlendMode(blending.value), sigma_scale=0.125, device=device, dtype=torch.float32
    )
    carries = [_Carry(1 + axis, starts[axis], patch[axis], shape[axis]) for axis in axes]
    places = list(itertools.product(*(range(len(starts[axis])) for axis in axes)))
    room: Tensor | None = None
    for first in range(0, len(places), batch):
        some = places[first : first + batch]
        scores = score([_start(starts, axes, place) for place in some])
        for place, answer in zip(some, scores, strict=True):
            if room is None:
                room = torch.empty((len(answer) + 1, *patch), device=device)
            block = room  # the same for every patch: fresh pages would cost more than all that is done with them
            torch.mul(answer.to(device, torch.float32), weights, out=block[:-1])
            block[-1] = weights
            box = [slice(0), slice(0), slice(0)]
            inner: tuple[int, ...] = ()
            # From the innermost axis outwards: what one carry lets go is all that the next one will ever get there.
            for carry, axis, position in zip(carries[::-1], axes[::-1], place[::-1], strict=True):
                box[axis], block = carry.add(position, inner, block)
                inner += (position,)
            yield (box[0], box[1], box[2]), block[:-1].div_(block[-1:])


class _Carry:
    """Adds up along one axis what patches overlap, and keeps what later ones still add to."""

    def __init__(self, dimension: int, starts: Sequence[int], length: int, whole: int) -> None:
        self._dimension = dimension
        self._starts = starts
        self._length = length
        self._whole = whole
        self._kept: dict[tuple[int, ...], Tensor] = {}

    def add(self, position: int, inner: tuple[int, ...], block: Tensor) -> tuple[slice, Tensor]:
        """Add the block of the patch at that position to what is kept of those before it.

        Args:
            position: of the patch along this axis.
            inner: its positions along the axes within, which tell what was kept for the same place.
            block: changed in place.

        Returns:
            The range along the axis that is finished, and its sums.
        """
        start = self._starts[position]
        first, stop = max(0, start), min(self._whole, start + self._length)
        last = position == len(self._starts) - 1
        end = stop if last else self._starts[position + 1]
        inside = block.narrow(self._dimension, first - start, stop - first)
        kept = self._kept.pop(inner, None)
        if kept is not None:
            inside.narrow(self._dimension, 0, kept.shape[self._dimension]).add_(kept)
        if end < stop:
            self._kept[inner] = inside.narrow(self._dimension, end - first, stop - end).clone()
        return slice(first, end), inside.narrow(self._dimension, 0, end - first)


def _start(starts: Sequence[Sequence[int]], axes: Sequence[int], place: Sequence[int]) -> Start:
    where = [0, 0, 0]
    for axis, position in zip(axes, place, strict=True):
        where[axis] = starts[axis][position]
    return where[0], where[1], where[2]
