"""How slices are laid on paper: the radiological way, whatever way the axes of the scan run.

Patient's right is shown on the left, anterior up on axial slices; head up, and anterior on the left, on the others.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from services.core.volumes import Geometry

Scalar = TypeVar("Scalar", bound=np.generic)

SIDES = (("L", "R"), ("P", "A"), ("S", "I"))
"""What lies towards the positive and the negative end of each patient axis of LPS."""
OBLIQUE_COMPONENT = 0.35
"""Sine of about 20°: an axis that leans further towards a second side is labelled with both."""


@dataclass(frozen=True, slots=True)
class SliceView:
    """How the slices of a volume are laid on paper."""

    transposed: bool
    flip_rows: bool
    flip_columns: bool
    left: str
    right: str
    top: str
    bottom: str
    pixel_aspect: float
    """Height of a shown pixel over its width."""
    position_axis: int
    """The patient axis (0 to 2) along which slice positions are told."""

    def shown(self, plane: NDArray[Scalar]) -> NDArray[Scalar]:
        """One slice, shape (height, width), as rows from the top and columns from the left of the paper."""
        if self.transposed:
            plane = plane.T
        return plane[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


def view_of(geometry: Geometry) -> SliceView:
    """The radiological view of slices that x and y of `geometry` span; the plainest one where they are oblique."""
    axes = np.array([geometry.x_axis, geometry.y_axis, geometry.z_axis])
    across, down = (int(axis) for axis in np.abs(axes[:2]).argmax(axis=1))
    # Of the two patient axes in the plane, the later of L, P, S is shown upright.
    transposed = across > down
    horizontal, vertical = (axes[1], axes[0]) if transposed else (axes[0], axes[1])
    flip_columns = flip_rows = False
    if across != down:
        upright = max(across, down)
        flip_columns = horizontal[min(across, down)] < 0
        # Posterior is down, and so is inferior.
        flip_rows = (vertical[upright] < 0) if upright == 1 else (vertical[upright] > 0)
    rightwards = -horizontal if flip_columns else horizontal
    downwards = -vertical if flip_rows else vertical
    width, height = geometry.spacing[0], geometry.spacing[1]
    return SliceView(
        transposed=transposed,
        flip_rows=bool(flip_rows),
        flip_columns=bool(flip_columns),
        left=_side(-rightwards),
        right=_side(rightwards),
        top=_side(-downwards),
        bottom=_side(downwards),
        pixel_aspect=width / height if transposed else height / width,
        position_axis=int(np.abs(axes[2]).argmax()),
    )


def slice_position(geometry: Geometry, view: SliceView, index: int) -> str:
    """Where the first voxel of slice `index` lies along the patient, such as «S 12.5 mm»."""
    position = (geometry.index_to_patient() @ (0, 0, index, 1))[view.position_axis]
    side = SIDES[view.position_axis][0 if position > 0 else 1]
    return f"{side} {abs(position):.1f} mm"


def _side(direction: NDArray[np.float64]) -> str:
    """The letters of where a unit vector in LPS points, the strongest first."""
    order = np.argsort(-np.abs(direction), kind="stable")
    letters = [SIDES[axis][0 if direction[axis] > 0 else 1] for axis in order]
    leans = [abs(direction[axis]) > OBLIQUE_COMPONENT for axis in order[1:]]
    return letters[0] + "".join(letter for letter, leaning in zip(letters[1:], leans, strict=True) if leaning)
