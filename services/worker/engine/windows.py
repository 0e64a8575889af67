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
from services.worker.engine.preprocessing import Start
from services.worker.masks import Box

SLAB_FLOATS = 2**21
"""Summed up at once on a CPU: eight megabytes, whatever a patch takes. Less would cost more calls than memory."""

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
) -> Iterator[tuple[Box, Tensor, Tensor | None]]:
    """The boxes that make up a grid of `shape`, each with its weighted sums of scores (outputs, depth, height, width)
    and, where wanted, the sums of their weights (depth, height, width), both float32.

    They are to be used before the next box is asked for, which takes their place.

    Args:
        score: called with up to `batch` places at a time.
        device: where scores are put together.
        carried: what sums wait for later patches in. float16 takes half of the memory; sums above its 65504 become
            infinite.
        weighed: whether the sums of weights are wanted, asked once with the first patch's scores.
    """
    starts = patch_starts(shape, patch, overlap)
    # The longest axis outermost: what is carried over is a plane across the other two.
    axes = sorted(range(3), key=lambda axis: -shape[axis])
    weights = compute_importance_map(
        patch, mode=BlendMode(blending.value), sigma_scale=0.125, device=device, dtype=torch.float32
    )
    lines = [_Line(starts[axis], patch[axis], shape[axis]) for axis in axes]
    add = _Addition()
    plane = _Plane(axes[0], lines[0], carried, add)
    middle, inner = _Carry(axes[1], lines[1], carried, add), _Carry(axes[2], lines[2], carried, add)
    room: Tensor | None = None
    outputs = sums = 0
    places = list(itertools.product(*(range(len(starts[axis])) for axis in axes)))
    for first in range(0, len(places), batch):
        some = places[first : first + batch]
        scores = score([_start(starts, axes, place) for place in some]).to(device)
        for place, answer in zip(some, scores, strict=True):
            if room is None:
                # The same for every slab: fresh pages would cost more than all that is done with them.
                outputs = len(answer)
                sums = outputs + 1 if weighed(answer) else outputs
                room = torch.empty(_slab_shape(sums, patch, axes[0], device), device=device)
            box = [slice(0), slice(0), slice(0)]
            for slab in lines[0].slabs(place[0], room.shape[1 + axes[0]]):
                block = _across(room, axes[0], slice(0, slab.stop - slab.start))
                its_weights = _across(weights[None], axes[0], slab)
                torch.mul(_across(answer, axes[0], slab), its_weights, out=block[:outputs])
                block[outputs:] = its_weights
                # From the innermost axis outwards: what one carry lets go is all that the next will ever get there.
                box[axes[2]], block = inner.add(place[2], (slab.start,), block)
                box[axes[1]], block = middle.add(place[1], (slab.start, place[2]), block)
                done = plane.add(place[0], slab, box, block)
                if done is not None:
                    box[axes[0]] = done
                    yield (box[0], box[1], box[2]), block[:outputs], block[outputs] if sums > outputs else None
        del scores, answer  # before the next ones are made


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

    def kept(self, position: int) -> int:
        """How much of the patches before it the patch at that position adds to, from its beginning on."""
        if position == 0:
            return 0
        _, end, stop = self.bounds(position - 1)
        return stop - end

    def slabs(self, position: int, thickness: int) -> Iterator[slice]:
        """The patch's part of the grid in slices, none of them in part finished and in part to be kept."""
        first, end, stop = self.bounds(position)
        for part in (range(first, end), range(end, stop)):
            for start in part[::thickness]:
                yield slice(start, min(start + thickness, part.stop))


class _Addition:
    """Adds sums that were kept, in whatever precision, to sums in single precision.

    On a CPU torch would make a copy in single precision for every such addition, of which the fresh pages cost several
    times what the addition does. Here one copy makes room for the next.
    """

    def __init__(self) -> None:
        self._room: Tensor | None = None

    def __call__(self, sums: Tensor, kept: Tensor) -> None:
        """Add `kept` to `sums`, in place."""
        if sums.device.type == "cpu" and kept.dtype != sums.dtype:
            if self._room is None or self._room.numel() < kept.numel():
                self._room = sums.new_empty(kept.numel())
            kept = self._room[: kept.numel()].view(kept.shape).copy_(kept)
        sums.add_(kept)


class _Carry:
    """Adds up along one axis what patches overlap, and keeps what the next one adds to."""

    def __init__(self, axis: int, line: _Line, carried: torch.dtype, add: _Addition) -> None:
        self._axis = axis
        self._carried = carried
        self._line = line
        self._add = add
        self._kept: dict[tuple[int, ...], Tensor] = {}

    def add(self, position: int, place: tuple[int, ...], block: Tensor) -> tuple[slice, Tensor]:
        """Add what is kept of the patches before to a block of the patch at that position.

        Args:
            position: of the patch along this axis.
            place: along the other axes, which tells what was kept for the same place.
            block: changed in place.

        Returns:
            The range of the grid along this axis that is finished, and its sums.
        """
        first, end, stop = self._line.bounds(position)
        start = self._line.starts[position]
        kept = self._kept.get(place)
        if kept is not None:
            self._add(_across(block, self._axis, slice(0, self._line.kept(position))), kept)
        if end == stop:
            self._kept.pop(place, None)
        else:
            rest = _across(block, self._axis, slice(end, stop))
            if kept is not None and kept.shape == rest.shape:
                kept.copy_(rest)
            else:
                self._kept[place] = rest.to(self._carried, memory_format=torch.contiguous_format, copy=True)
        return slice(start + first, start + end), _across(block, self._axis, slice(first, end))


class _Plane:
    """The same along the outermost axis, where what is kept reaches across the whole grid: a piece for each column."""

    def __init__(self, axis: int, line: _Line, carried: torch.dtype, add: _Addition) -> None:
        self._axis = axis
        self._carried = carried
        self._line = line
        self._add = add
        self._most = max(map(line.kept, range(len(line.starts))))
        self._kept: dict[tuple[int, ...], Tensor] = {}

    def add(self, position: int, slab: slice, columns: Sequence[slice], block: Tensor) -> slice | None:
        """Add what is kept of the patches before to a slab of the patch at that position.

        Args:
            position: of the patch along this axis.
            slab: which part of the patch, as `_Line.slabs` gives it.
            columns: its place on the grid along the other axes.
            block: its sums, changed in place.

        Returns:
            The range of the grid along this axis if that is finished, None if it is kept.
        """
        place = tuple(columns[axis].start for axis in range(3) if axis != self._axis)
        kept = self._kept.get(place)
        if kept is None:
            shape = list(block.shape)
            shape[1 + self._axis] = self._most
            kept = self._kept[place] = block.new_empty(shape, dtype=self._carried)
        common = slice(slab.start, min(slab.stop, self._line.kept(position)))
        if common.start < common.stop:
            part = _across(block, self._axis, slice(0, common.stop - common.start))
            self._add(part, _across(kept, self._axis, common))
        start = self._line.starts[position]
        _, end, _ = self._line.bounds(position)
        if slab.stop <= end:
            return slice(start + slab.start, start + slab.stop)
        # Never over what is still to be added: that lies behind this slab, and this goes before it.
        _across(kept, self._axis, slice(slab.start - end, slab.stop - end)).copy_(block)
        return None


def _slab_shape(sums: int, patch: Shape, axis: int, device: torch.device) -> list[int]:
    """Of a slab of a patch across that axis: what fits into a processor's cache, or elsewhere the whole patch."""
    shape = [sums, *patch]
    if device.type == "cpu":
        layer = sums * math.prod(patch) // patch[axis]
        shape[1 + axis] = min(patch[axis], max(1, SLAB_FLOATS // layer))
    return shape


def _across(values: Tensor, axis: int, part: slice) -> Tensor:
    """That part of (outputs, depth, height, width) along one of the last three."""
    return values.narrow(1 + axis, part.start, part.stop - part.start)


def _start(starts: Sequence[Sequence[int]], axes: Sequence[int], place: Sequence[int]) -> Start:
    where = [0, 0, 0]
    for axis, position in zip(axes, place, strict=True):
        where[axis] = starts[axis][position]
    return where[0], where[1], where[2]
