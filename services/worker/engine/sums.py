"""Scores of a box of voxels, weighted, with what waits there of patches before: a formula, worked out when it is known
what for. On a CPU one pass over memory does that (`compiled`), on other devices PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from services.worker.engine import compiled


class ScoresOverflowed(Exception):
    """Scores were too large for half precision; to be asked for again in single precision."""


@dataclass(frozen=True, eq=False, slots=True)
class Sums:
    """scores · weights + what waits, in a box."""

    scores: Tensor
    """(outputs, depth, height, width)."""
    weights: Tensor | None = None
    """float32 (depth, height, width); None where nothing is weighed: then these are the scores as they are."""
    waiting: Sequence[Tensor] = ()
    """Sums to be added, (channels, depth, height, width), each from the box's first voxel on, along no axis longer."""
    with_weights: bool = False
    """One channel more than there are outputs: the sums of the weights."""

    def __post_init__(self) -> None:
        """Raises ValueError for parts that do not fit each other: compiled code would read beyond them."""
        channels, *box = self.shape
        if self.weights is None and (self.waiting or self.with_weights):
            raise ValueError("where nothing is weighed, nothing waits, and there are no sums of weights")
        if self.weights is not None and list(self.weights.shape) != box:
            raise ValueError(f"weights of shape {tuple(self.weights.shape)} are not those of a box of {tuple(box)}")
        for more in self.waiting:
            its_channels, *its_box = more.shape
            if its_channels != channels or any(its > whole for its, whole in zip(its_box, box, strict=True)):
                raise ValueError(f"what waits, of shape {tuple(more.shape)}, reaches beyond {self.shape}")

    def part(self, axis: int, first: int, stop: int) -> "Sums":
        """Those of a part of the box along one of its axes, from its voxel `first` to before `stop`."""
        length = stop - first
        waiting = [
            each.narrow(1 + axis, first, min(length, each.shape[1 + axis] - first))
            for each in self.waiting
            if first < each.shape[1 + axis]
        ]
        return replace(
            self,
            scores=self.scores.narrow(1 + axis, first, length),
            weights=None if self.weights is None else self.weights.narrow(axis, first, length),
            waiting=waiting,
        )

    def with_waiting(self, more: Tensor) -> "Sums":
        return replace(self, waiting=[*self.waiting, more])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(channels, depth, height, width)."""
        outputs, depth, height, width = self.scores.shape
        return outputs + self.with_weights, depth, height, width

    def write(self, to: Tensor) -> bool:
        """Work them out into a tensor of their shape, which holds nothing that they are made of.

        Returns:
            Whether all that are finite still are: half precision makes what rounds to more than 65504 infinite.
        """
        if compiled.takes(self, to):
            return compiled.write(self, to)
        values = self.values()
        to.copy_(values)
        return to.dtype != torch.float16 or not bool((torch.isinf(to) & torch.isfinite(values)).any())

    def values(self) -> Tensor:
        """All of them: float32, or the scores as they are."""
        if self.weights is None:
            return self.scores
        sums = self.weights.new_empty(self.shape)
        if compiled.takes(self, sums):
            compiled.write(self, sums)
            return sums
        outputs = len(self.scores)
        torch.mul(self.scores, self.weights, out=sums[:outputs])
        sums[outputs:] = self.weights
        for more in self.waiting:
            _, depth, height, width = more.shape
            sums[:, :depth, :height, :width] += more
        return sums

    def greatest(self, tables: Tensor) -> tuple[Tensor, bool]:
        """Of every voxel the bits of its greatest output, of equals the first.

        Args:
            tables: uint8 (planes, outputs or more), the bits of each output.

        Returns:
            uint8 (planes, depth, height, width), and whether every greatest output is finite. Of a NaN, which counts
            as the greatest, the bits mean nothing.
        """
        if compiled.takes(self):
            return compiled.greatest(self, tables)
        values = self.values()[: len(self.scores)]
        if not values.is_floating_point():
            values = values.long()  # PyTorch has no greatest of some
        greatest, labels = values.max(dim=0)
        planes = bits_of(labels, tables)
        # One look at a sum, as it nearly always is: whatever is not finite makes it so.
        finite = not greatest.is_floating_point() or bool(torch.isfinite(greatest.sum()))
        return planes, finite or bool(torch.isfinite(greatest).all())


def bits_of(labels: Tensor, tables: Tensor) -> Tensor:
    """uint8 (planes, depth, height, width) of labels (depth, height, width), by tables (planes, labels)."""
    places = labels.flatten()
    return torch.stack([table.index_select(0, places).view(labels.shape) for table in tables])
