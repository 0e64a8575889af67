"""What is done to a finished mask on its own grid: holes, largest piece, smallest volume."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from services.core.model_spec import StructureSpec
from services.worker.masks import Box, Masks

if TYPE_CHECKING:
    from services.core.model_options import Cleanup, ModelOptions

NEIGHBOURS = np.ones((3, 3, 3), bool)
"""All 26: a vessel that runs along a diagonal is one piece."""


def cleanup_of(options: "ModelOptions", structure: StructureSpec) -> "Cleanup":
    """What that structure gets."""
    own = options.postprocessing.structures
    return own.get(structure.structure_id) or own.get(structure.name) or options.postprocessing


def clean(masks: Masks, structure: int, wanted: "Cleanup", voxel_volume_mm3: float) -> None:
    """Do to the structure's mask what is wanted, within the box that holds it."""
    if not (wanted.fill_holes or wanted.largest_component or wanted.minimum_volume_mm3):
        return
    box = _bounding_box(masks.get(structure))
    if box is None:
        return
    from scipy import ndimage  # noqa: PLC0415 # a benchmark machine without SciPy runs all the rest

    mask = masks.get(structure, box).astype(bool)
    if wanted.fill_holes:
        mask = ndimage.binary_fill_holes(mask)
    if wanted.largest_component or wanted.minimum_volume_mm3:
        mask = _pieces_kept(mask, wanted, voxel_volume_mm3)
    masks.put(structure, mask, box)


def _pieces_kept(mask: NDArray[np.bool_], wanted: "Cleanup", voxel_volume_mm3: float) -> NDArray[np.bool_]:
    from scipy import ndimage  # noqa: PLC0415

    pieces, count = ndimage.label(mask, NEIGHBOURS)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    # So that rounding of a voxel's volume decides nothing.
    keep = sizes * voxel_volume_mm3 >= wanted.minimum_volume_mm3 - 1e-6 * voxel_volume_mm3
    keep[0] = False
    if wanted.largest_component:
        keep &= np.arange(count + 1) == np.argmax(sizes)
    kept: NDArray[np.bool_] = keep[pieces]
    return kept


def _bounding_box(mask: NDArray[np.uint8]) -> Box | None:
    box: list[slice] = []
    for axis in range(3):
        present = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if not present.size:
            return None
        box.append(slice(int(present[0]), int(present[-1]) + 1))
    return box[0], box[1], box[2]
