"""Where a model draws: on its own grid, of which masks are made afterwards, or at once into the masks themselves."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from services.core.model_spec import StructureSpec
from services.core.volumes import Volume
from services.worker.engine.grids import Grid, relabelling
from services.worker.engine.resampling import resampled
from services.worker.masks import Box, Masks, plane_count

DECISION_VOXELS = 2**22
"""Decided at once where a model answers for a whole volume."""

HALF = 0.5 - 1e-4
"""A resampled mask is where its interpolated value is at least a half; rounding must not tell neighbours apart."""


def canvas_on(
    grid: Grid, structures: Sequence[StructureSpec], volumes: Sequence[Volume], masks: Masks
) -> tuple[Masks, bool]:
    """What to draw on, on the model's grid, and whether that is the result's own bytes: then nothing has to be moved.

    It is where all structures lie on one channel whose voxels are the model's, in whatever order.
    """
    channels = {structure.channel_index for structure in structures}
    if len(channels) == 1:
        [channel] = channels
        same = relabelling(Grid.of_volume(volumes[channel]), grid)
        if same is not None:
            return Masks([same.view(masks.planes[channel])], [0] * len(masks)), True
    planes = np.zeros((plane_count(len(structures)), *grid.shape), np.uint8)
    return Masks([planes], [0] * len(structures)), False


def bring_back(
    canvas: Masks,
    grid: Grid,
    structures: Sequence[StructureSpec],
    volumes: Sequence[Volume],
    masks: Masks,
    device: torch.device,
) -> None:
    """Each structure from the canvas, which lies on `grid`, to the grid of its channel. Resampled on `device`."""
    for index, structure in enumerate(structures):
        target = Grid.of_volume(volumes[structure.channel_index])
        same = relabelling(grid, target)
        if same is not None:
            masks.put(index, same.view(canvas.get(index)))
            continue
        index_map = grid.from_index_of(target)
        mask = torch.from_numpy(canvas.get(index)).to(device).float()
        for first, stop, values in resampled(mask[None], index_map, target.shape, outside=0.0):
            box = (slice(first, stop), slice(0, target.shape[1]), slice(0, target.shape[2]))
            masks.put(index, (values[0] >= HALF).cpu().numpy(), box)


def in_slabs(outputs: Tensor) -> Iterator[tuple[Box, Tensor]]:
    """A whole volume's outputs (outputs, depth, height, width), some slices at a time."""
    _, depth, height, width = outputs.shape
    step = max(1, DECISION_VOXELS // (height * width * max(1, outputs.shape[0])))
    for first in range(0, depth, step):
        stop = min(first + step, depth)
        yield (slice(first, stop), slice(0, height), slice(0, width)), outputs[:, first:stop]
