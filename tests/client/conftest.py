"""Scans made here: geometry of every kind, DICOM written slice by slice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services.client.itk import simple_itk
from services.client.scans import Scan, read_scan

MakeScan = Callable[..., Scan]

SKEWED = np.array([[0.8, -0.6, 0.0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]])
"""A rotation about no axis of the patient."""


def image_of(
    voxels: NDArray[Any],
    *,
    direction: NDArray[np.float64] | None = None,
    spacing: tuple[float, float, float] = (0.7, 0.8, 2.5),
    origin: tuple[float, float, float] = (-12.5, 30.25, -101.0),
) -> Any:
    """A SimpleITK image of `voxels`, shape (depth, height, width); the columns of `direction` are its axes."""
    image = simple_itk().GetImageFromArray(voxels)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection((np.eye(3) if direction is None else direction).ravel().tolist())
    return image


def ramp(shape: tuple[int, int, int] = (4, 5, 6)) -> NDArray[np.int16]:
    """Voxels that all differ, so that any flip or transposition shows."""
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape) - 20


@pytest.fixture
def make_scan(tmp_path: Path) -> MakeScan:
    """Write voxels to a file and read them back as a scan; keywords are those of `image_of`."""

    def make(voxels: NDArray[Any] | None = None, name: str = "scan.nrrd", **geometry: Any) -> Scan:
        path = tmp_path / name
        simple_itk().WriteImage(image_of(ramp() if voxels is None else voxels, **geometry), str(path))
        return read_scan(path)

    return make
