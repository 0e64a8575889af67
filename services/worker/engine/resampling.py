"""Values of one grid at the places of another, by linear interpolation, a slab at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from services.core.volumes import Shape
from services.worker.engine.grids import Affine

SLAB_VOXELS = 2**22
"""Of the target, at once: coordinates take twelve bytes each."""


def resampled(source: Tensor, index_map: Affine, shape: Shape, *, outside: float) -> Iterator[tuple[int, int, Tensor]]:
    """Slabs of `source` on a grid of `shape`: first slice, the one after the last, and values (channels, k, h, w).

    As ITK has it, a voxel reaches half its size beyond its centre: what lies within is interpolated with the border
    repeated, what lies without is `outside`.

    Args:
        source: float, shape (channels, depth, height, width).
        index_map: from an index (z, y, x, 1) of the target to the source's.
        shape: (depth, height, width) of the target.
        outside: value where the source has none.
    """
    depth, height, width = shape
    step = max(1, SLAB_VOXELS // (height * width))
    matrix = torch.tensor(index_map[:3], dtype=torch.float64)
    lengths = torch.tensor(source.shape[1:], dtype=torch.float32, device=source.device)
    y, x = (torch.arange(length, dtype=torch.float64) for length in (height, width))
    in_plane = (y[:, None, None] * matrix[:, 1] + x[None, :, None] * matrix[:, 2]).to(source.device)
    for first in range(0, depth, step):
        stop = min(first + step, depth)
        z = torch.arange(first, stop, dtype=torch.float64)
        along = (z[:, None] * matrix[:, 0] + matrix[:, 3]).to(source.device)
        # Added in double precision, kept in single: an index of a few thousand is then exact to a ten-thousandth.
        index = (in_plane[None] + along[:, None, None]).float()
        inside = ((index >= -0.5) & (index <= lengths - 0.5)).all(dim=-1)
        # grid_sample counts from -1 to 1 between the outer faces of the outer voxels, and in the order x, y, z.
        place = ((2 * index + 1) / lengths - 1).flip(-1)
        values = functional.grid_sample(
            source[None], place[None].to(source.dtype), mode="bilinear", padding_mode="border", align_corners=False
        )[0]
        values.masked_fill_(~inside, outside)
        yield first, stop, values
