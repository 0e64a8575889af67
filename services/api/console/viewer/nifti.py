"""The NIfTI-1 header of a grid, so that a browser's viewer knows where voxels lie in the patient.

NIfTI's world is RAS, x growing to the patient's right and y to the front: DICOM's LPS with both turned round.
https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.core.volumes import Geometry, Shape, Vector

HEADER_BYTES = 352
"""The header of 348 bytes, and four that say that no extension follows; voxels come next."""
MOST_SIDE = 32767
"""Voxels along one side; the header counts them in 16 bits."""

FLAT_MM3 = 1e-9
"""A voxel that small is none: a micrometre on each edge."""

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

UNPLACED: NDArray[np.float64] = _LPS_TO_RAS
"""For voxels that nothing places in a patient: slices as they are counted, their first row above, their first column on
the left."""
_MILLIMETRES = 2
_SCANNER = 1
"""NIFTI_XFORM_SCANNER_ANAT."""
_LABELS = 1002
"""NIFTI_INTENT_LABEL: a voxel's value is a name, which must never be interpolated."""


@dataclass(frozen=True, slots=True)
class Voxels:
    """What one voxel is."""

    code: int
    bits: int
    intent: int = 0
    shown_range: tuple[float, float] = (0.0, 0.0)
    """Values shown as black and white; equal where the viewer is to choose."""


INT16 = Voxels(code=4, bits=16)
LABELS = Voxels(code=2, bits=8, intent=_LABELS, shown_range=(0.0, 255.0))


def placement(geometry: Geometry) -> NDArray[np.float64] | None:
    """The affine (4, 4) from index (i, j, k, 1) along width, height, depth to millimetres in RAS.

    None where the geometry places nothing: an axis has no direction, two have the same, or a number is not finite.
    """
    with np.errstate(all="ignore"):
        affine = geometry.index_to_patient()
        if not np.all(np.isfinite(affine.astype(np.float32))) or geometry.voxel_volume_mm3 < FLAT_MM3:
            return None
    return _LPS_TO_RAS @ affine


def spacing_of(affine: NDArray[np.float64]) -> Vector:
    """Millimetres between neighbours along width, height, depth."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def header(shape: Shape, affine: NDArray[np.float64], voxels: Voxels) -> bytes:
    """The header of a single-file NIfTI-1 image, `HEADER_BYTES` long; its voxels follow it, little-endian, x fastest.

    Args:
        shape: (depth, height, width), each at most `MOST_SIDE`.
        affine: as `placement` gives it, or `UNPLACED`.
        voxels: what each of them is.
    """
    depth, height, width = shape
    low, high = voxels.shown_range
    return b"".join(
        (
            struct.pack("<i36x", 348),
            struct.pack("<8h", 3, width, height, depth, 1, 1, 1, 1),
            struct.pack("<3f4h", 0, 0, 0, voxels.intent, voxels.code, voxels.bits, 0),
            struct.pack("<8f", 1, *spacing_of(affine), 0, 0, 0, 0),
            struct.pack("<3f", HEADER_BYTES, 1, 0),
            struct.pack("<hBB", 0, 0, _MILLIMETRES),
            struct.pack("<4f2i", high, low, 0, 0, 0, 0),
            struct.pack("<80s24s", b"For research, not for clinical use", b""),
            # No quaternion: it could not hold a sheared grid, and two placements could contradict each other.
            struct.pack("<2h6f", 0, _SCANNER, 0, 0, 0, 0, 0, 0),
            struct.pack("<12f", *affine[:3].ravel()),
            struct.pack("<16s4s4x", b"", b"n+1\0"),
        )
    )
