"""A folder of DICOM files: which series it holds, and one of them as an image on a regular grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.client.itk import UnreadableScan, check_readable, read_file, reason_of, simple_itk

DICOM_SUFFIXES = (".dcm", ".ima")

SPACING_TOLERANCE = 0.05
"""Share of the slice distance by which a gap may differ from the usual one: scanners round positions."""
PARALLEL_TOLERANCE = 1e-3
"""Largest deviation of a direction cosine among the slices of one volume: DICOM writes few decimals."""
SHIFT_TOLERANCE = 0.5
"""Share of a pixel by which slices may be shifted against each other over the whole volume."""


def series_of(path: Path) -> str | None:
    """The series UID of one DICOM image file; None for any other file."""
    header = _header_of(path)
    return header.series if header else None


@dataclass(frozen=True, slots=True)
class _Header:
    """What one DICOM image file says about its place in a series. Lengths are millimetres."""

    path: Path
    series: str
    description: str
    modality: str
    size: tuple[int, ...]
    spacing: tuple[float, ...]
    position: NDArray[np.float64]
    axes: NDArray[np.float64]
    """Shape (3, 3), columns x, y and the slice normal."""
    thickness: float | None
    components: int


def _header_of(path: Path) -> _Header | None:
    """The header of a DICOM image; None for any other file, DICOM without pixels included."""
    check_readable(path)
    reader = simple_itk().ImageFileReader()
    if reader.GetImageIOFromFileName(str(path)) != "GDCMImageIO":
        if path.name.lower().endswith(DICOM_SUFFIXES):
            # Skipping it could cut a slice off the end of a scan without anybody noticing.
            raise UnreadableScan(f"{path} is named like DICOM but is not, or is damaged; export it again or remove it.")
        return None
    reader.SetFileName(str(path))
    reader.SetImageIO("GDCMImageIO")
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None

    def tag(key: str) -> str:
        return str(reader.GetMetaData(key)).strip(" \0") if reader.HasMetaDataKey(key) else ""

    return _Header(
        path=path,
        series=tag("0020|000e"),
        description=tag("0008|103e"),
        modality=tag("0008|0060"),
        size=reader.GetSize(),
        spacing=reader.GetSpacing(),
        position=np.asarray(reader.GetOrigin(), dtype=np.float64),
        axes=np.asarray(reader.GetDirection(), dtype=np.float64).reshape(3, 3),
        thickness=_positive_number(tag("0018|0050")),
        components=reader.GetNumberOfComponents(),
    )


def read_dicom(folder: Path, series: str | None) -> tuple[Any, str]:
    """The image and the modality of the one series in `folder` that is meant. Subfolders are not searched."""
    found: dict[str, list[_Header]] = {}
    try:
        files = sorted(entry for entry in folder.iterdir() if entry.is_file())
    except OSError as error:
        raise UnreadableScan(f"{folder} cannot be listed ({error.strerror}); check its permissions.") from error
    for header in filter(None, map(_header_of, files)):
        found.setdefault(header.series, []).append(header)
    if not found:
        raise UnreadableScan(
            f"{folder} holds no DICOM images among its {len(files)} files; subfolders are not searched, so give the "
            "folder with the slices, or a volume file itself."
        )
    listing = "; ".join(
        f"{uid} («{headers[0].description}», {headers[0].modality}, {len(headers)} slices)"
        for uid, headers in found.items()
    )
    if series is None and len(found) > 1:
        raise UnreadableScan(f"{folder} holds {len(found)} series; choose one with --series UID: {listing}.")
    chosen = found.get(series) if series else next(iter(found.values()))
    if chosen is None:
        raise UnreadableScan(f"{folder} has no series {series}; it holds {listing}.")
    slices = _in_order(chosen, folder)
    if len(slices) == 1:
        image = read_file(slices[0].path)
        if image.GetDepth() == 1 and slices[0].thickness:
            image.SetSpacing((*image.GetSpacing()[:2], slices[0].thickness))
        return image, slices[0].modality
    reader = simple_itk().ImageSeriesReader()
    reader.SetFileNames([str(header.path) for header in slices])
    try:
        return reader.Execute(), slices[0].modality
    except RuntimeError as error:
        raise UnreadableScan(
            f"The series in {folder} could not be read: {reason_of(error)}. Export it again."
        ) from error


def _in_order(headers: Sequence[_Header], folder: Path) -> list[_Header]:
    """The slices sorted along their normal; raises where they are not one regular, orthogonal grid."""
    first = headers[0]
    if any(header.components != 1 for header in headers):
        raise UnreadableScan(f"The series in {folder} is in colour; a scan has one value per voxel.")
    if len(headers) == 1:
        return list(headers)
    same = all(
        header.size == first.size
        and np.allclose(header.spacing, first.spacing, rtol=PARALLEL_TOLERANCE)
        and np.allclose(header.axes, first.axes, atol=PARALLEL_TOLERANCE)
        for header in headers
    )
    if not same or first.size[2] != 1:
        raise UnreadableScan(
            f"The series in {folder} mixes images of different size, spacing or direction (a localizer?); keep only "
            "the files of one volume."
        )
    normal = first.axes[:, 2]
    slices = sorted(headers, key=lambda header: float(header.position @ normal))
    positions = np.array([header.position for header in slices])
    heights = positions @ normal
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    if gaps.min() <= SPACING_TOLERANCE * usual or usual <= 0:
        at = int(gaps.argmin())
        raise UnreadableScan(
            f"The series in {folder} has more than one image at one position ({slices[at].path.name} and "
            f"{slices[at + 1].path.name}); keep only the files of one volume."
        )
    regular = np.linspace(heights[0], heights[-1], len(heights))
    if np.abs(gaps - usual).max() > SPACING_TOLERANCE * usual or np.abs(heights - regular).max() > usual / 4:
        at = int(np.abs(gaps - usual).argmax())
        raise UnreadableScan(
            f"The series in {folder} has slices missing or unevenly spaced: {gaps[at]:.2f} mm between "
            f"{slices[at].path.name} and {slices[at + 1].path.name}, {usual:.2f} mm elsewhere; export all of it, or "
            "resample it."
        )
    shifts = (positions - positions[0]) - np.outer(heights - heights[0], normal)
    if np.abs(shifts).max() > SHIFT_TOLERANCE * min(first.spacing[:2]):
        raise UnreadableScan(
            f"The slices in {folder} are shifted against each other (gantry tilt); resample the scan to a straight "
            "grid first."
        )
    return slices


def _positive_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) and number > 0 else None
