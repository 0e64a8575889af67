"""Rows of features for a model that classifies voxel by voxel: `call: voxels`.

Columns come channel by channel in the model's order: all features of the first channel as the options declare them,
then all of the second. `position` is of no channel: its three columns stand where it is declared among the first
channel's, and not again. With the channels CT and PET, `[intensity, position, gaussian:2]` is CT intensity, x, y, z,
CT gaussian:2, PET intensity, PET gaussian:2.

Everything is computed on preprocessed values, on the model's grid. S is the scale in millimetres, s the spacing along
an axis; at the border values are mirrored (scipy.ndimage's `reflect`).

| feature | is |
|---|---|
| intensity | the value |
| position | patient x, y, z in millimetres, in DICOM's frame |
| gaussian:S | smoothed with a Gaussian of standard deviation S (S / s voxels), cut off at four of them |
| gradient:S | length of the gradient of that, per millimetre |
| laplacian:S | sum of its second derivatives, per square millimetre |
| mean:S, minimum:S, maximum:S, deviation:S | of the box that reaches round(S / s) voxels to either side |

`deviation` is the standard deviation over the box's voxels, not over one less.

Slices are worked on a slab at a time, each with as many slices around it as its filter reaches, and every filter is one
whose result depends on nothing else: the features are bit for bit those of the whole volume. So there is no running
sum here (`uniform_filter`), whose rounding depends on where it began.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, repeat

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from services.core.errors import InvalidModelInput
from services.core.model_choices import split_feature
from services.core.volumes import Vector
from services.worker.engine.grids import Affine, Grid
from services.worker.engine.preprocessing import ModelInput
from services.worker.thread_limit import thread_count

TRUNCATE = 4.0
"""Standard deviations after which a Gaussian ends: scipy's default, which is what features were trained with."""

SLAB_VALUES = 2**25
"""Features at once, four bytes each. A slab has a slice at least, however many that makes."""

SLAB_VOXELS = 2**22
"""Voxels at once, of which filters hold a few copies in double precision."""

MOST_THREADS = 4
"""Columns at once: each holds those copies."""

MOST_REACH = 4096
"""Voxels that a filter may reach; more is a wrong spacing, and would take hours."""

BOXES = frozenset({"mean", "minimum", "maximum", "deviation"})
POSITION = "position"

Float32s = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Column:
    """One feature of one channel; `position` is one, though it has three columns."""

    feature: str
    """As declared: gaussian:2."""
    channel: int


def columns(features: Sequence[str], channels: int) -> list[Column]:
    """The features in the order of their columns."""
    return [
        Column(feature, channel)
        for channel in range(channels)
        for feature in features
        if channel == 0 or feature != POSITION
    ]


def column_names(features: Sequence[str], channels: Sequence[str]) -> list[str]:
    """What a person calls each column of a row. `channels`: names, empty for one that has none."""
    names: list[str] = []
    for column in columns(features, max(1, len(channels))):
        of_channel = f"{channels[column.channel]} " if len(channels) > 1 else ""
        names += ["x", "y", "z"] if column.feature == POSITION else [f"{of_channel}{column.feature}"]
    return names


def feature_slabs(data: ModelInput, features: Sequence[str]) -> Iterator[tuple[int, int, Float32s]]:
    """First slice, the one after the last, and rows (voxels, columns) of their voxels, x fastest, slab by slab.

    Raises InvalidModelInput when the grid's spacing makes no sense of a scale.
    """
    depth, height, width = data.grid.shape
    wanted = columns(features, len(data.channels))
    *places, count = accumulate((3 if column.feature == POSITION else 1 for column in wanted), initial=0)
    halo = max((_reach(feature, data.grid.spacing)[0] for feature in features), default=0)
    step = max(1, min(SLAB_VOXELS, SLAB_VALUES // count) // (height * width))
    with ThreadPoolExecutor(min(MOST_THREADS, thread_count()), "features") as pool:
        for first in range(0, depth, step):
            stop = min(first + step, depth)
            before, after = max(0, first - halo), min(depth, stop + halo)
            values = data.patch((before, 0, 0), (after - before, height, width)).cpu().numpy()
            slab = _Slab(data.grid, values, before, first, stop)
            rows = np.empty((stop - first, height, width, count), np.float32)
            # scipy lets go of the interpreter while it filters.
            list(pool.map(slab.fill, repeat(rows), places, wanted))
            yield first, stop, rows.reshape(-1, count)


@dataclass(frozen=True, eq=False, slots=True)
class _Slab:
    """Slices `first` to `stop` of a grid, with what filters need around them: `values` begin at slice `before`."""

    grid: Grid
    values: Float32s
    """(channels, depth, height, width)"""
    before: int
    first: int
    stop: int

    def fill(self, rows: Float32s, place: int, column: Column) -> None:
        """Write a feature into `rows` (depth, height, width, columns), from column `place` on."""
        if column.feature == POSITION:
            rows[..., place : place + 3] = _positions(self.grid.affine, self.first, rows.shape)
            return
        reach = _reach(column.feature, self.grid.spacing)[0]
        start = max(self.before, self.first - reach)
        around = self.values[column.channel, start - self.before : self.stop + reach - self.before]
        inner = slice(self.first - start, self.stop - start)
        rows[..., place] = _feature(around, inner, column.feature, self.grid.spacing)


def _reach(feature: str, spacing: Vector) -> tuple[int, int, int]:
    """How many voxels along z, y, x a feature looks to either side."""
    kind, scale = split_feature(feature)
    if not scale:
        return 0, 0, 0
    if not all(np.isfinite(length) and length * MOST_REACH > TRUNCATE * scale for length in spacing):
        listed = ", ".join(f"{length:g}" for length in reversed(spacing))
        raise InvalidModelInput(
            f"The model's feature {feature} is in millimetres, which the volume's spacing of ({listed}) millimetres "
            "cannot be right for; send a DataTransform with the voxels' size."
        )
    if kind in BOXES:
        z, y, x = (round(scale / length) for length in spacing)
    else:
        z, y, x = (int(TRUNCATE * scale / length + 0.5) for length in spacing)  # as scipy has it
    return z, y, x


def _feature(values: Float32s, inner: slice, feature: str, spacing: Vector) -> NDArray[np.floating]:
    """The feature for the slices `inner` of `values`, which are as much as it reaches."""
    kind, scale = split_feature(feature)
    match kind:
        case "intensity":
            return values[inner]
        case "gaussian":
            return _gaussian(values, inner, scale, spacing, (0, 0, 0))
        case "gradient":
            first = [_derivative(values, inner, scale, spacing, axis, 1) for axis in range(3)]
            return np.asarray(np.sqrt(first[0] ** 2 + first[1] ** 2 + first[2] ** 2))
        case "laplacian":
            second = [_derivative(values, inner, scale, spacing, axis, 2) for axis in range(3)]
            return second[0] + second[1] + second[2]
        case "minimum" | "maximum":
            extreme = ndimage.minimum_filter1d if kind == "minimum" else ndimage.maximum_filter1d
            z, y, x = (2 * reach + 1 for reach in _reach(feature, spacing))
            return np.asarray(extreme(extreme(extreme(values, z, axis=0)[inner], y, axis=1), x, axis=2))
        case _:
            return _moment(values, inner, kind, [2 * reach + 1 for reach in _reach(feature, spacing)])


def _moment(values: Float32s, inner: slice, kind: str, lengths: Sequence[int]) -> NDArray[np.float64]:
    """Mean or deviation over boxes of `lengths` voxels."""
    count = float(np.prod(lengths))
    total = _box_sums(values.astype(np.float64), inner, lengths)
    if kind == "mean":
        return total / count
    squares = _box_sums(np.square(values, dtype=np.float64), inner, lengths)
    # Of whole numbers both sums are exact, so that a flat region deviates by nothing at all.
    return np.asarray(np.sqrt(np.maximum(count * squares - total**2, 0)) / count)


def _derivative(values: Float32s, inner: slice, scale: float, spacing: Vector, axis: int, order: int) -> Float32s:
    """Of that order along that axis, per millimetre to that power, of the smoothed values."""
    orders = [0, 0, 0]
    orders[axis] = order
    per_voxel = _gaussian(values, inner, scale, spacing, orders)
    return per_voxel / np.float32(spacing[axis] ** order)


def _gaussian(values: Float32s, inner: slice, scale: float, spacing: Vector, orders: Sequence[int]) -> Float32s:
    """scipy's `gaussian_filter`, axis by axis as it does it, but across slices of which only `inner` are needed."""
    smoothed = values
    for axis in range(3):
        smoothed = ndimage.gaussian_filter1d(
            smoothed, scale / spacing[axis], axis, orders[axis], mode="reflect", truncate=TRUNCATE
        )
        if axis == 0:
            smoothed = smoothed[inner]
    return smoothed


def _box_sums(values: NDArray[np.float64], inner: slice, lengths: Sequence[int]) -> NDArray[np.float64]:
    sums = values
    for axis in range(3):
        sums = ndimage.correlate1d(sums, np.ones(lengths[axis]), axis, mode="reflect")
        if axis == 0:
            sums = sums[inner]
    return sums


def _positions(affine: Affine, first: int, shape: Sequence[int]) -> NDArray[np.float64]:
    """Patient x, y, z (slices, height, width, 3) of the voxels from slice `first` on."""
    z, y, x = (np.arange(length, dtype=np.float64) for length in shape[:3])
    matrix = affine[:3]
    along = (z + first)[:, None] * matrix[:, 0] + matrix[:, 3]
    in_plane = y[:, None, None] * matrix[:, 1] + x[None, :, None] * matrix[:, 2]
    return np.asarray(along[:, None, None] + in_plane[None])
