"""Scans on disk: a DICOM series, NIfTI, NRRD or MetaImage becomes a volume in the patient frame, and a mask goes
back to disk on the very grid it was drawn on.

Geometry is ITK's: DICOM's LPS in millimetres, the columns of the direction matrix are the axes of x, y and z.
An axis may run backwards or obliquely; nothing is reoriented or resampled.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.client.dicom_series import read_dicom, series_of
from services.client.itk import UnreadableScan, geometry_of, quiet_itk, read_file, reason_of, simple_itk
from services.core.errors import SegIntError
from services.core.volumes import Geometry, Mask, Shape, Volume

__all__ = ["MaskNotWritten", "Scan", "UnreadableScan", "read_scan", "write_mask"]

FILE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
INT16 = np.iinfo(np.int16)

LEAST_CONTRAST = 16
"""A scan of fractions with a smaller range loses its picture when rounded to whole numbers."""


class MaskNotWritten(SegIntError):
    """A mask that does not fit its scan, or that could not be stored on the scan's grid."""

    summary = "Mask not written"


@dataclass(frozen=True, eq=False, slots=True)
class Scan:
    """One scan as it lies on disk. `image` is the SimpleITK image whose grid masks are written on."""

    volume: Volume
    image: Any
    modality: str
    """DICOM's Modality, such as CT or MR; empty where the file does not say."""
    path: Path


def read_scan(path: Path, series: str | None = None) -> Scan:
    """Read the scan at `path`: a folder with a DICOM series, one file of such a series, or a volume file.

    `series` is the DICOM series UID to take where a folder holds several. A two-dimensional image becomes one
    slice. Raises UnreadableScan; nothing is guessed.
    """
    if not path.exists():
        raise UnreadableScan(f"{path} does not exist; check the path.")
    with quiet_itk():
        if path.is_dir():
            image, modality = read_dicom(path, series)
        elif path.name.lower().endswith(FILE_SUFFIXES):
            image, modality = read_file(path), ""
        else:
            own_series = series_of(path)
            if own_series is None:
                raise UnreadableScan(
                    f"{path} is not a readable DICOM image and does not end in {', '.join(FILE_SUFFIXES)}; give a "
                    "folder with a DICOM series, NIfTI, NRRD or MetaImage."
                )
            image, modality = read_dicom(path.parent, series or own_series)
        return Scan(Volume(_as_int16(image, path), geometry_of(image)), image, modality, path)


def write_mask(mask: Mask, scan: Scan, path: Path) -> None:
    """Write `mask` as unsigned bytes of 0 and 1 with the scan's own geometry; `path` ends in .nii.gz.

    The file is reopened and its grid compared with the scan's. Raises MaskNotWritten, and then leaves no file.
    """
    if mask.shape != scan.volume.shape:
        raise MaskNotWritten(
            f"The mask has {_sides(mask.shape)} voxels and the scan {_sides(scan.volume.shape)}; "
            "a mask is drawn on the grid of its scan, so the model behind it needs correcting."
        )
    image = simple_itk().GetImageFromArray(mask.voxels)
    image.CopyInformation(scan.image)
    try:
        with quiet_itk():
            simple_itk().WriteImage(image, str(path), useCompression=True)
            reader = simple_itk().ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
    except RuntimeError as error:
        path.unlink(missing_ok=True)
        raise MaskNotWritten(
            f"{path} could not be written ({reason_of(error)}); check the folder's permissions and room."
        ) from error
    if not _same_grid(geometry_of(reader), scan.volume.geometry, mask.shape):
        path.unlink(missing_ok=True)
        raise MaskNotWritten(
            f"{path.name} cannot hold the geometry of {scan.path}; resample the scan to an orthogonal grid."
        )


def _as_int16(image: Any, path: Path) -> NDArray[np.int16]:
    """The voxels, shape (depth, height, width), rounded to int16; raises where that would change the picture."""
    voxels: NDArray[Any] = simple_itk().GetArrayViewFromImage(image)
    if voxels.size == 0:
        raise UnreadableScan(f"{path} has no voxels; export the scan again.")
    if voxels.dtype.kind not in "iuf":
        raise UnreadableScan(f"{path} holds {voxels.dtype} values; a scan holds real numbers.")
    if voxels.dtype == np.int16:
        return np.array(voxels, order="C")
    lowest, highest = voxels.min(), voxels.max()
    # A NaN anywhere makes both of them NaN.
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise UnreadableScan(f"{path} holds values that are not numbers (NaN or infinite); replace them first.")
    if np.rint(lowest) < INT16.min or np.rint(highest) > INT16.max:
        raise UnreadableScan(
            f"{path} holds values from {lowest:g} to {highest:g}; models take whole numbers from {INT16.min} to "
            f"{INT16.max}, so rescale the scan first."
        )
    if voxels.dtype.kind != "f":
        return voxels.astype(np.int16)
    rounded: NDArray[Any] = np.rint(voxels)
    if highest - lowest < LEAST_CONTRAST and not np.array_equal(rounded, voxels):
        raise UnreadableScan(
            f"{path} holds fractions from {lowest:g} to {highest:g}, which whole numbers cannot keep; rescale the scan "
            "to its original intensities first."
        )
    return rounded.astype(np.int16)


def _same_grid(one: Geometry, other: Geometry, shape: Shape) -> bool:
    """Whether both put every corner of a volume of `shape` within a hundredth of a voxel (NIfTI keeps 32 bits)."""
    depth, height, width = shape
    corners = np.array([(i, j, k, 1) for i in (0, width) for j in (0, height) for k in (0, depth)]).T
    apart = np.abs((one.index_to_patient() - other.index_to_patient()) @ corners).max()
    return bool(apart <= 0.01 * min(other.spacing))


def _sides(shape: Shape) -> str:
    return " × ".join(map(str, reversed(shape)))
