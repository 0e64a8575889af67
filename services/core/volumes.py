"""Volumes, masks and where they lie in the patient.

Arrays have shape (depth, height, width), C order: x runs fastest. Indices (i, j, k) count along width, height,
depth. Lengths are millimetres. The patient frame is DICOM's LPS.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

Vector = tuple[float, float, float]
Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where a grid lies: index (i, j, k) maps to origin + Σ axis · spacing · index, in patient millimetres.

    An axis may run backwards or obliquely; nothing here assumes a right-handed or orthogonal frame.
    """

    origin: Vector = (0.0, 0.0, 0.0)
    x_axis: Vector = (1.0, 0.0, 0.0)
    y_axis: Vector = (0.0, 1.0, 0.0)
    z_axis: Vector = (0.0, 0.0, 1.0)
    spacing: Vector = (1.0, 1.0, 1.0)

    def index_to_patient(self) -> NDArray[np.float64]:
        """The affine of shape (4, 4) from homogeneous (i, j, k, 1) to patient (x, y, z, 1)."""
        affine = np.eye(4)
        affine[:3, :3] = np.column_stack([self.x_axis, self.y_axis, self.z_axis]) * np.asarray(self.spacing)
        affine[:3, 3] = self.origin
        return affine

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in cubic millimetres."""
        return float(abs(np.linalg.det(self.index_to_patient()[:3, :3])))


@dataclass(frozen=True, eq=False, slots=True)
class Volume:
    """One input channel. `voxels`: int16, shape (depth, height, width)."""

    voxels: NDArray[np.int16]
    geometry: Geometry = field(default_factory=Geometry)
    channel_id: str = ""
    volume_id: str = ""

    @property
    def shape(self) -> Shape:
        """(depth, height, width)."""
        depth, height, width = self.voxels.shape
        return depth, height, width


@dataclass(frozen=True, eq=False, slots=True)
class Mask:
    """One structure on the grid of its channel. `voxels`: uint8 of 0 and 1, shape (depth, height, width)."""

    voxels: NDArray[np.uint8]

    @classmethod
    def from_nonzero(cls, array: NDArray[np.generic]) -> Self:
        """A mask that is 1 wherever `array` is non-zero."""
        return cls((array != 0).view(np.uint8))

    @property
    def shape(self) -> Shape:
        """(depth, height, width)."""
        depth, height, width = self.voxels.shape
        return depth, height, width
