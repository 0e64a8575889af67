"""SimpleITK at arm's length: imported when first needed, kept quiet, its errors cut down to one sentence."""

import importlib
import locale
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import SegIntError
from services.core.volumes import Geometry, Vector


class UnreadableScan(SegIntError):
    """A scan that is missing, damaged, ambiguous, or not one volume of whole numbers."""

    summary = "Scan cannot be read"


def simple_itk() -> Any:
    """The SimpleITK module. It takes most of a second to load and has no types."""
    return importlib.import_module("SimpleITK")


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keep ITK from writing warnings to stderr and from changing the process's locale.

    What matters of the warnings is checked by the callers and raised. GDCM, which writes DICOM, leaves the locale at
    "C", and from then on Python would read other programs' output as ASCII.
    """
    process = simple_itk().ProcessObject
    warnings, localization = process.GetGlobalWarningDisplay(), locale.setlocale(locale.LC_ALL)
    process.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        process.SetGlobalWarningDisplay(warnings)
        locale.setlocale(locale.LC_ALL, localization)


def reason_of(error: RuntimeError) -> str:
    """The last sentence of ITK's several lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    return lines[-1].rpartition("): ")[2].removeprefix("sitk::ERROR: ").rstrip(". ")


def check_readable(path: Path) -> None:
    """Raise UnreadableScan where this user may not read the file: ITK takes it for missing, or for no image."""
    if not os.access(path, os.R_OK):
        raise UnreadableScan(f"{path} may not be read by this user; check its permissions.")


def read_file(path: Path) -> Any:
    """The SimpleITK image in a volume file, three-dimensional and of one component."""
    check_readable(path)
    reader = simple_itk().ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size = reader.GetSize()
        if reader.GetNumberOfComponents() != 1:
            raise UnreadableScan(
                f"{path} has {reader.GetNumberOfComponents()} values per voxel; a scan has one, so extract it first."
            )
        if len(size) > 3 and any(length != 1 for length in size[3:]):
            raise UnreadableScan(
                f"{path} has {len(size)} dimensions ({' × '.join(map(str, size))}); extract one three-dimensional "
                "volume first."
            )
        image = reader.Execute()
    except RuntimeError as error:
        raise UnreadableScan(f"{path} could not be read: {reason_of(error)}. Export the scan again.") from error
    while image.GetDimension() > 3:
        image = image[..., 0]
    return image if image.GetDimension() == 3 else simple_itk().JoinSeries(image)


def geometry_of(image: Any) -> Geometry:
    """The grid of a three-dimensional SimpleITK image or opened reader."""
    x_axis, y_axis, z_axis = np.asarray(image.GetDirection()).reshape(3, 3).T
    return Geometry(*map(_vector, (image.GetOrigin(), x_axis, y_axis, z_axis, image.GetSpacing())))


def _vector(values: Sequence[float] | NDArray[np.float64]) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z
