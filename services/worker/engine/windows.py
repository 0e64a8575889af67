"""Sliding-window inference whose scores are given out as soon as no later patch can change them.

MONAI's `sliding_window_inference` holds the scores of the whole volume: for fourteen structures on 512×512×200 voxels
three gigabytes. Here a finished box of scores goes to its decision at once, and only what the next patches overlap is
kept. Patches, their places and their weights are MONAI's (`dense_patch_slices`, `compute_importance_map`), and so are
the results; what is kept waits in half precision, as nnU-Net's sums do, which on a CPU halves the memory beyond the
volume and its masks.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.utils.enums import BlendMode
from torch import Tensor

from services.core.model_choices import Blending
from services.core.volumes import Shape
from services.worker.engine import compiled
from services.worker.engine.preprocessing import Start
from services.worker.engine.sums import ScoresOverflowed, Sums
from services.worker.masks import Box

SLAB_FLOATS = 2**21
"""Given out at once on a CPU: eight megabytes where they are written out, whatever a patch takes. Less would cost more
calls than memory."""

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
    shape: Shape,
    patch: Shape,
    overlap: float,
    blending: Blending,
    batch: int,
    score: Score,
    device: torch.device,
    carried: torch.dtype,
    weighed: Callable[[Tensor], bool],
) -> Iterator[tuple[Box, Sums]]:
    """The boxes that make up a grid of `shape`, each with its weighted sums of scores.

    They are to be worked out before the next box is asked for, which takes the memory of what they are made of.

    Args:
        score: called with up to `batch` places at a time.
        device: where scores are put together.
        carried: what sums wait for later patches in. float16 takes half of the memory.
        weighed: whether the sums of the weights are wanted as well, asked once with the first patch's scores.

    Raises ScoresOverflowed for a sum that float16 has no number for.
    """
    starts = patch_starts(shape, patch, overlap)
    # The longest axis outermost: what is carried over is a plane across the other two.
    axes = sorted(range(3), key=lambda axis: -shape[axis])
    weights = compute_importance_map(
        patch, mode=BlendMode(blending.value), sigma_scale=0.125, device=device, dtype=torch.float32
    )
    lines = [_Line(starts[axis], patch[axis], shape[axis]) for axis in axes]
    carries = [_Carry(axis, line, carried) for axis, line in zip(axes, lines, strict=True)]
    with_weights: bool | None = None
    places = list(itertools.product(*(range(len(starts[axis])) for axis in axes)))
    for first in range(0, len(places), batch):
        some = places[first : first + batch]
        scores = score([_start(starts, axes, place) for place in some]).to(device)
        for place, answer in zip(some, scores, strict=True):
            if with_weights is None:
                with_weights = weighed(answer)
            sums = Sums(answer, weights, with_weights=with_weights)
            box = [slice(0), slice(0), slice(0)]
            for carry, position in zip(carries, place, strict=True):
                sums = carry.on_grid(position, sums)
            # From the innermost axis outwards: what one carry lets go is all that the next will ever get there.
            for level in (2, 1, 0):
                box[axes[level]], sums = carries[level].add(place[level], place[level + 1 :], sums)
            yield from _in_slabs(box, sums, axes[0])
            # From the outermost axis inwards: each still needs what waits along those within it.
            for carry in carries:
                carry.keep()
        del scores, answer, sums  # before the next ones are made


@dataclass(frozen=True, slots=True)
class _Line:
    """The patches along one axis of the grid."""

    starts: Sequence[int]
    length: int
    """Of each of them."""
    whole: int
    """Length of the grid."""

    def bounds(self, position: int) -> tuple[int, int, int]:
        """Where the patch at that position begins on the grid, where no later one adds anything up to, where it ends;
        counted from its own beginning."""
        start = self.starts[position]
        stop = min(self.whole, start + self.length)
        end = stop if position == len(self.starts) - 1 else self.starts[position + 1]
        return max(0, -start), end - start, stop - start


class _Carry:
    """Adds up along one axis what patches overlap, and keeps what the next one adds to."""

    def __init__(self, axis: int, line: _Line, carried: torch.dtype) -> None:
        self._axis = axis
        self._carried = carried
        self._line = line
        self._kept: dict[tuple[int, ...], Tensor] = {}
        self._due: Sums | None = None
        self._others: tuple[int, ...] = ()

    def on_grid(self, position: int, sums: Sums) -> Sums:
        """What of the patch at that position lies on the grid."""
        first, _, stop = self._line.bounds(position)
        return sums.part(self._axis, first, stop)

    def add(self, position: int, others: tuple[int, ...], sums: Sums) -> tuple[slice, Sums]:
        """Add what waits of the patches before to those of the patch at that position.

        Args:
            position: of the patch along this axis.
            others: its positions along the axes within this one, which tell what waits for the same place.
            sums: those of the patch on the grid.

        Returns:
            The range of the grid along this axis that is finished, and its sums. They are to be worked out before
            `keep` is called.
        """
        first, end, stop = self._line.bounds(position)
        waited = self._kept.get(others)
        if waited is not None:
            sums = sums.with_waiting(waited)
        self._due = sums.part(self._axis, end - first, stop - first) if end < stop else None
        self._others = others
        if waited is not None and (end == stop or waited.shape[1 + self._axis] > end - first):
            del self._kept[others]  # it ends here, or a part of it waits on: then not in the same memory
        start = self._line.starts[position]
        return slice(start + first, start + end), sums.part(self._axis, 0, end - first)

    def keep(self) -> None:
        """Work out and keep what is not finished of the patch last added. Raises ScoresOverflowed."""
        if self._due is None:
            return
        kept = self._kept.get(self._others)
        if kept is None or kept.shape != self._due.shape:
            kept = self._kept[self._others] = self._due.scores.new_empty(self._due.shape, dtype=self._carried)
        due, self._due = self._due, None
        if not due.write(kept):
            raise ScoresOverflowed


def _in_slabs(box: Sequence[slice], sums: Sums, axis: int) -> Iterator[tuple[Box, Sums]]:
    """On a CPU in slabs across that axis, unless nobody is going to write them out: so that it takes little memory."""
    whole = box[axis].stop - box[axis].start
    thickness = whole
    if sums.scores.device.type == "cpu" and not (compiled.takes(sums) and not sums.with_weights):
        thickness = max(1, SLAB_FLOATS * whole // math.prod(sums.shape))
    for first in range(0, whole, thickness):
        stop = min(first + thickness, whole)
        where = list(box)
        where[axis] = slice(box[axis].start + first, box[axis].start + stop)
        yield (where[0], where[1], where[2]), sums.part(axis, first, stop)


def _start(starts: Sequence[Sequence[int]], axes: Sequence[int], place: Sequence[int]) -> Start:
    where = [0, 0, 0]
    for axis, position in zip(axes, place, strict=True):
        where[axis] = starts[axis][position]
    return where[0], where[1], where[2]
