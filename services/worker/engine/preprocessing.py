"""From volumes as sent to what a model gets, patch by patch.

Voxels stay int16 on their way to the device and there, unless they were resampled; window and normalisation are
applied to each patch, so that no float copy of a whole volume is ever held for a patch-wise model.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.core.errors import ModelFailed
from services.core.model_choices import Normalisation
from services.core.volumes import Shape, Volume
from services.worker.engine.grids import Grid, relabelling
from services.worker.engine.resampling import resampled
from services.worker.model_stages import ModelStage, StageTimes

if TYPE_CHECKING:
    from services.core.model_options import ChannelPreprocessing, ModelOptions

Start = tuple[int, int, int]
"""Index (z, y, x) of a patch's first voxel; may lie outside the grid, as its end may."""

STATISTICS_VOXELS = 2**22
"""Looked at at once for least, greatest, mean and deviation."""


@dataclass(frozen=True, eq=False, slots=True)
class Scaling:
    """value → (value held within low and high, less shift) · factor."""

    low: float | None
    high: float | None
    shift: float
    factor: float

    def apply(self, values: Tensor) -> Tensor:
        """`values`, float, changed in place."""
        if self.low is not None or self.high is not None:
            values.clamp_(self.low, self.high)
        if self.shift != 0:
            values.sub_(self.shift)
        if self.factor != 1:
            values.mul_(self.factor)
        return values


@dataclass(frozen=True, eq=False, slots=True)
class Channel:
    """One input channel on the model's grid and device. `voxels`: int16 or float32, (depth, height, width)."""

    voxels: Tensor
    scaling: Scaling
    outside: float


@dataclass(frozen=True, eq=False, slots=True)
class ModelInput:
    """What a model gets, on one grid."""

    grid: Grid
    channels: tuple[Channel, ...]

    def patch(self, start: Start, shape: Shape) -> Tensor:
        """float32 (channels, depth, height, width) of that shape from `start` on; beyond the grid is each channel's
        outside value."""
        return self.patches([start], shape)[0]

    def patches(self, starts: Sequence[Start], shape: Shape) -> Tensor:
        """The same of several, as float32 (patches, channels, depth, height, width)."""
        room = self.channels[0].voxels.new_empty((len(starts), len(self.channels), *shape), dtype=torch.float32)
        for start, patch in zip(starts, room, strict=True):
            firsts = [max(0, first) for first in start]
            stops = [
                min(first + length, whole) for first, length, whole in zip(start, shape, self.grid.shape, strict=True)
            ]
            inner = tuple(slice(first, stop) for first, stop in zip(firsts, stops, strict=True))
            place = tuple(
                slice(first - outer, stop - outer) for first, stop, outer in zip(firsts, stops, start, strict=True)
            )
            for channel, values in zip(self.channels, patch, strict=True):
                part = channel.voxels[inner]
                if part.shape != values.shape:
                    values.fill_(channel.outside)
                values[place].copy_(part)
                channel.scaling.apply(values)
        return room


def order_of_channels(options: "ModelOptions", channel_ids: Sequence[str]) -> list[int]:
    """Which volume each channel of the model is.

    Raises ModelFailed when `channel_order` names others than there are.
    """
    order = options.preprocessing.channel_order
    if not order:
        return list(range(len(channel_ids)))
    if sorted(order) != sorted(channel_ids):
        raise ModelFailed(
            f"The option channel_order names {', '.join(order)}, but the volumes are {', '.join(channel_ids)}; "
            "attach the model again with each of its channels once."
        )
    return [list(channel_ids).index(name) for name in order]


def model_grid(options: "ModelOptions", reference: Volume) -> Grid:
    """The grid that the model works on, made from that of its first channel."""
    grid = Grid.of_volume(reference)
    if options.preprocessing.orientation is not None:
        grid = grid.oriented(options.preprocessing.orientation)
    if options.preprocessing.spacing is not None:
        grid = grid.respaced(options.preprocessing.spacing)
    return grid


def model_input(
    options: "ModelOptions", volumes: Sequence[Volume], device: torch.device, times: StageTimes | None = None
) -> ModelInput:
    """The volumes, in the model's order, on the model's grid and device. The transfer's time is added to `times`.

    Raises InvalidModelInput when a volume has to be moved but does not say where it lies.
    """
    times = times or StageTimes()
    grid = model_grid(options, volumes[0])
    channels = []
    for volume in volumes:
        wanted = options.preprocessing.of_channel(volume.channel_id)
        outside = options.preprocessing.outside
        own_grid = Grid.of_volume(volume)
        same = relabelling(own_grid, grid)
        if same is not None:
            with times.timed(ModelStage.TRANSFER):
                voxels = _on_device(same.view(volume.voxels), device)
            lowest = outside if outside is not None else float(voxels.min())
        else:
            with times.timed(ModelStage.TRANSFER):
                source = _on_device(volume.voxels, device)
            lowest = outside if outside is not None else float(source.min())
            index_map = own_grid.from_index_of(grid)
            voxels = torch.empty(grid.shape, dtype=torch.float32, device=device)
            for first, stop, values in resampled(source.float()[None], index_map, grid.shape, outside=lowest):
                voxels[first:stop] = values[0]
        channels.append(Channel(voxels, _scaling(wanted, voxels), lowest))
    return ModelInput(grid, tuple(channels))


def _on_device(voxels: NDArray[np.generic], device: torch.device) -> Tensor:
    """Two bytes a voxel go over; on the CPU nothing is copied but what a view turned around."""
    if any(step < 0 for step in voxels.strides):  # which torch has no word for
        voxels = np.ascontiguousarray(voxels)
    with warnings.catch_warnings(action="ignore"):  # that they are only to be read, which is all that is done here
        return torch.from_numpy(voxels).to(device)


def _scaling(wanted: "ChannelPreprocessing", voxels: Tensor) -> Scaling:
    low, high = wanted.intensity_window or (None, None)
    match wanted.normalisation:
        case Normalisation.NONE:
            return Scaling(low, high, 0.0, 1.0)
        case Normalisation.MEAN_STD:
            return Scaling(low, high, wanted.mean, 1 / wanted.std)
        case Normalisation.UNIT_RANGE:
            least = float(voxels.min()) if low is None else low
            greatest = float(voxels.max()) if high is None else high
            return Scaling(low, high, least, _inverse(greatest - least))
        case Normalisation.Z_SCORE:
            mean, deviation = _mean_and_deviation(voxels, low, high)
            return Scaling(low, high, mean, _inverse(deviation))


def _inverse(length: float) -> float:
    """A volume of one value only has no scale: it becomes zero."""
    return 1 / length if length > 0 else 1.0


def _mean_and_deviation(voxels: Tensor, low: float | None, high: float | None) -> tuple[float, float]:
    """Of the values within the window, in double precision, without a copy of the whole."""
    count, total, squares = voxels.numel(), 0.0, 0.0
    slices = max(1, STATISTICS_VOXELS // max(1, voxels[0].numel()))
    for first in range(0, voxels.shape[0], slices):
        values = voxels[first : first + slices].double()
        if low is not None or high is not None:
            values.clamp_(low, high)
        total += float(values.sum())
        squares += float(values.square_().sum())
    mean = total / count
    return mean, max(0.0, squares / count - mean**2) ** 0.5
