"""Which of a model's outputs is the greatest, voxel by voxel."""

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

POOLED_TYPES = frozenset({torch.float32, torch.float64, torch.int64})
"""That torch pools on a CPU as they are."""


class Argmax:
    """Keeps the memory that it works in, on a CPU: fresh pages would cost as much as what is done with them."""

    def __init__(self) -> None:
        self._room: Tensor | None = None

    def __call__(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """The first of the greatest of outputs (outputs, depth, height, width), int64, and its value; both (depth,
        height, width). A NaN counts as the greatest."""
        if outputs.device.type != "cpu":
            greatest, labels = outputs.max(dim=0)
            return labels, greatest
        if outputs.dtype not in POOLED_TYPES:
            outputs = outputs.float() if outputs.is_floating_point() else outputs.long()  # exact
        # Torch's own max across the first axis takes one voxel at a time. Its pooling, where channels come last, takes
        # a vector of them; so here a row of voxels is the channels, and the outputs are the window.
        count, depth, height, width = outputs.shape
        if self._room is None or self._room.numel() < outputs.numel() or self._room.dtype != outputs.dtype:
            self._room = outputs.new_empty(outputs.numel())
        rows = self._room[: outputs.numel()].view(depth, height, count, width)
        rows.copy_(outputs.permute(1, 2, 0, 3))
        windows = rows.view(depth * height, count, 1, width).permute(0, 3, 1, 2)
        greatest, labels = max_pool2d(windows, (count, 1), return_indices=True)
        return _without_window(labels, outputs), _without_window(greatest, outputs)


def _without_window(pooled: Tensor, outputs: Tensor) -> Tensor:
    return pooled.permute(0, 2, 3, 1).view(outputs.shape[1:])
