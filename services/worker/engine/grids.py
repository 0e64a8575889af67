"""Where grids lie, and how one lies on another.

Indices here are (z, y, x), as arrays are indexed: along depth, height, width. The patient frame is DICOM's LPS, in
millimetres.
"""

from dataclasses import dataclass
from itertools import permutations
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InvalidModelInput
from services.core.volumes import Shape, Vector, Volume

Affine = NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)

SAME_VOXEL = 0.01
"""Two grids are the same where no voxel's centre is further off than this, in voxels: no mask can show it."""

FLAT_MM3 = 1e-9
"""A voxel that small is none: a micrometre on each edge."""

_LETTERS = {
    "L": (1.0, 0.0, 0.0),
    "R": (-1.0, 0.0, 0.0),
    "P": (0.0, 1.0, 0.0),
    "A": (0.0, -1.0, 0.0),
    "S": (0.0, 0.0, 1.0),
    "I": (0.0, 0.0, -1.0),
}
"""Which way a letter points in LPS."""


@dataclass(frozen=True, eq=False, slots=True)
class Grid:
    """`shape`: (depth, height, width). `affine`: (4, 4), from index (z, y, x, 1) to patient (x, y, z, 1)."""

    shape: Shape
    affine: Affine

    @classmethod
    def of_volume(cls, volume: Volume) -> Self:
        """The grid of a volume's voxels."""
        affine = volume.geometry.index_to_patient()
        return cls(volume.shape, affine[:, [2, 1, 0, 3]])

    @property
    def spacing(self) -> Vector:
        """Millimetres between neighbours along z, y, x of the array."""
        z, y, x = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)

    def oriented(self, letters: str) -> "Grid":
        """The same voxels, with axes reordered and turned so that x, y and z point to `letters` as nearly as can be.

        Raises InvalidModelInput when an axis has no direction.
        """
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        if not np.all(np.isfinite(lengths)) or np.any(lengths == 0):
            raise _flat()
        wanted = np.array([_LETTERS[letter] for letter in reversed(letters)])
        cosines = wanted @ (self.affine[:3, :3] / lengths)
        # Which of this grid's axes each new axis is: the assignment that agrees most.
        order = max(
            permutations(range(3)), key=lambda axes: sum(abs(cosines[new, old]) for new, old in enumerate(axes))
        )
        affine = self.affine[:, [*order, 3]].copy()
        depth, height, width = (self.shape[axis] for axis in order)
        for new, old in enumerate(order):
            if cosines[new, old] < 0:
                affine[:3, 3] += affine[:3, new] * (self.shape[old] - 1)
                affine[:3, new] *= -1
        return Grid((depth, height, width), affine)

    def respaced(self, spacing: Vector) -> "Grid":
        """A grid over the same box, as nearly as whole voxels allow, around the same centre.

        `spacing`: (x, y, z) in millimetres.
        """
        affine = self.affine.copy()
        shape = list(self.shape)
        for axis, (wanted, own) in enumerate(zip(reversed(spacing), self.spacing, strict=True)):
            if abs(wanted - own) * self.shape[axis] < SAME_VOXEL * own:
                continue
            shape[axis] = max(1, round(self.shape[axis] * own / wanted))
            step = self.affine[:3, axis] * (wanted / own)
            affine[:3, axis] = step
            affine[:3, 3] += (self.affine[:3, axis] * (self.shape[axis] - 1) - step * (shape[axis] - 1)) / 2
        depth, height, width = shape
        return Grid((depth, height, width), affine)

    def from_index_of(self, other: "Grid") -> Affine:
        """The map (4, 4) from an index of `other` to the index of this grid at the same place in the patient.

        Raises InvalidModelInput when one of them is flat.
        """
        for grid in (self, other):
            if not np.all(np.isfinite(grid.affine)) or abs(np.linalg.det(grid.affine[:3, :3])) < FLAT_MM3:
                raise _flat()
        return np.asarray(np.linalg.solve(self.affine, other.affine))


@dataclass(frozen=True, slots=True)
class Relabelling:
    """How one grid's voxels are another's, only counted differently."""

    order: tuple[int, int, int]
    """Which axis of the source each axis of the target is."""
    flipped: tuple[bool, bool, bool]
    """Whether that axis of the target runs backwards."""

    @property
    def is_identity(self) -> bool:
        return self.order == (0, 1, 2) and not any(self.flipped)

    def view(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """The source's array as the target counts it: a view. The last three axes are depth, height and width."""
        lead = array.ndim - 3
        turned = array.transpose(*range(lead), *(lead + axis for axis in self.order))
        steps = tuple(slice(None, None, -1) if backwards else slice(None) for backwards in self.flipped)
        return turned[(..., *steps)]


def relabelling(source: Grid, target: Grid) -> Relabelling | None:
    """How `source`'s voxels become `target`'s without any interpolation; None where they are not the same voxels."""
    if source.shape == target.shape and np.array_equal(source.affine, target.affine):
        return Relabelling((0, 1, 2), (False, False, False))  # also for what no other grid could be compared with
    if sorted(source.shape) != sorted(target.shape):
        return None
    index_map = source.from_index_of(target)
    signs = np.rint(index_map[:3, :3])
    if not np.array_equal(np.abs(signs).sum(axis=0), [1, 1, 1]) or not np.array_equal(
        np.abs(signs).sum(axis=1), [1] * 3
    ):
        return None
    z, y, x = (int(np.flatnonzero(signs[:, axis])[0]) for axis in range(3))
    order = (z, y, x)
    flipped = tuple(bool(signs[old, new] < 0) for new, old in enumerate(order))
    if any(source.shape[old] != target.shape[new] for new, old in enumerate(order)):
        return None
    corner = np.zeros(3)
    for new, old in enumerate(order):
        corner[old] = source.shape[old] - 1 if flipped[new] else 0
    # How far off any voxel is: at the corner, and what the axes add over their length.
    off = np.abs(index_map[:3, 3] - corner) + np.abs(index_map[:3, :3] - signs) @ (np.array(target.shape) - 1)
    if np.any(off > SAME_VOXEL):
        return None
    return Relabelling(order, (flipped[0], flipped[1], flipped[2]))


def _flat() -> InvalidModelInput:
    return InvalidModelInput(
        "The volume's axes do not span a volume (one has no direction, or two have the same), and the model needs to "
        "know where voxels lie; send a DataTransform with three independent axes."
    )
