"""A model that needs no training: the outline of the body and its bone, by threshold and connectivity.

It shows the convention for PyTorch models: a module whose weights are a `state_dict`, called with one array.
"""

import numpy as np
import torch
from numpy.typing import NDArray

Plane = NDArray[np.bool_]
"""One slice, shape (height, width)."""

BODY_HU = -300.0
BONE_HU = 250.0


class BodyAndBone(torch.nn.Module):
    """Body and bone of a CT. Its state_dict has one entry, `threshold`: body and bone in Hounsfield units."""

    threshold: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.tensor([BODY_HU, BONE_HU]))

    @torch.inference_mode()
    def forward(self, volume: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Segment `volume`, Hounsfield units of shape (depth, height, width).

        Returns:
            uint8 of 0 and 1, shape (2, depth, height, width): body, bone.
        """
        body_hu, bone_hu = self.threshold
        masks = np.zeros((2, *volume.shape), dtype=np.uint8)
        for index, plane in enumerate(volume):
            values = torch.from_numpy(np.ascontiguousarray(plane)).to(self.threshold.device)
            tissue = (values > body_hu).cpu().numpy()
            bone = (values > bone_hu).cpu().numpy()
            body = _largest_region(_without_holes(tissue))
            masks[0, index] = body
            masks[1, index] = body & bone
        return masks


def _without_holes(tissue: Plane) -> Plane:
    """`tissue` and every gap in it that air from the edge of the picture does not reach."""
    air = ~tissue
    edge = np.zeros_like(air)
    edge[0], edge[-1], edge[:, 0], edge[:, -1] = air[0], air[-1], air[:, 0], air[:, -1]
    return ~_flood(edge, air)


def _largest_region(tissue: Plane) -> Plane:
    """The largest connected region of `tissue`; all False where there is none."""
    largest = np.zeros_like(tissue)
    rest = tissue
    while np.count_nonzero(rest) > np.count_nonzero(largest):
        # Start on the longest row of tissue: most likely in the largest region, and then one flood settles it.
        start = np.zeros_like(tissue)
        row = int(np.count_nonzero(rest, axis=1).argmax())
        start[row, _middle_of_longest_run(rest[row])] = True
        region = _flood(start, rest)
        rest = rest & ~region
        if np.count_nonzero(region) > np.count_nonzero(largest):
            largest = region
    return largest


def _middle_of_longest_run(row: Plane) -> int:
    ends = np.flatnonzero(np.diff(row, prepend=False, append=False))
    firsts, lasts = ends[::2], ends[1::2]
    longest = int((lasts - firsts).argmax())
    return int(firsts[longest] + lasts[longest] - 1) // 2


def _flood(start: Plane, open_ground: Plane) -> Plane:
    """What is connected with `start` through `open_ground`, along rows and columns."""
    reached = start & open_ground
    # Each way of looking at the picture sweeps down its rows; together they go in all four directions.
    views = [lambda a: a, lambda a: a[::-1], lambda a: a.T, lambda a: a.T[::-1]]
    closed = [_latest(~view(open_ground)) for view in views]
    count = -1
    while count != (count := np.count_nonzero(reached)):
        for view, last_closed in zip(views, closed, strict=True):
            # Open ground is reached where a reached pixel lies nearer behind it than any closed one.
            view(reached)[...] = _latest(view(reached)) > last_closed
    return reached


def _latest(marked: Plane) -> NDArray[np.int16]:
    """Per pixel, the last row at or above it that is marked in its column, counted from 1; 0 where there is none."""
    rows = np.arange(1, marked.shape[0] + 1, dtype=np.int16)[:, np.newaxis]
    return np.maximum.accumulate(marked * rows, axis=0)
