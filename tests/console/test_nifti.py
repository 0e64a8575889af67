"""A grid's NIfTI header against what SimpleITK writes of the same grid, and what nibabel reads of it."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from services.api.console.viewer.nifti import HEADER_BYTES, INT16, LABELS, UNPLACED, header, placement, spacing_of
from services.client.itk import simple_itk
from services.core.volumes import Geometry
from tests.client.conftest import SKEWED, image_of, ramp

PERMUTED = np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""A sagittal scan: x along the patient's back, y downwards, z to the right."""


def geometry_of(direction: NDArray[np.float64], spacing: tuple[float, float, float]) -> Geometry:
    x, y, z = (tuple(map(float, axis)) for axis in direction.T)
    return Geometry(origin=(-12.5, 30.25, -101.0), x_axis=x, y_axis=y, z_axis=z, spacing=spacing)  # type: ignore[arg-type] # three each


@pytest.mark.parametrize(
    "direction",
    [
        pytest.param(np.eye(3), id="axial"),
        pytest.param(np.diag([-1.0, -1.0, 1.0]), id="prone"),
        pytest.param(np.diag([1.0, 1.0, -1.0]), id="feet first, left-handed"),
        pytest.param(PERMUTED, id="sagittal"),
        pytest.param(SKEWED, id="oblique"),
        pytest.param(SKEWED @ np.diag([1.0, -1.0, 1.0]), id="oblique, left-handed"),
    ],
)
def test_a_voxel_lies_where_simpleitk_says(direction: NDArray[np.float64], tmp_path: Path) -> None:
    # Given a volume as SimpleITK writes it
    voxels = ramp((4, 5, 6))
    image = image_of(voxels, direction=direction, spacing=(0.7, 0.8, 2.5))
    path = str(tmp_path / "scan.nii")
    simple_itk().WriteImage(image, path)
    theirs = nibabel.Nifti1Image.from_filename(path)
    # When the same voxels follow the header made here
    affine = placement(geometry_of(direction, (0.7, 0.8, 2.5)))
    assert affine is not None
    data = header(voxels.shape, affine, INT16) + voxels.astype("<i2").tobytes()
    ours = nibabel.Nifti1Image.from_bytes(data)
    # Then every voxel has the same value at the same place, and that is where SimpleITK itself puts it
    np.testing.assert_array_equal(ours.get_fdata(), theirs.get_fdata())
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-4)
    assert ours.header["pixdim"][1:4] == pytest.approx([0.7, 0.8, 2.5])
    for index in ((0, 0, 0), (5, 0, 0), (0, 4, 0), (0, 0, 3), (3, 2, 1)):
        left, back, up = image.TransformIndexToPhysicalPoint(index)
        assert ours.affine @ [*index, 1] == pytest.approx([-left, -back, up, 1], abs=1e-4)


def test_a_sheared_grid_is_not_straightened() -> None:
    # A gantry that was tilted: z is not at right angles to y
    geometry = Geometry(z_axis=(0.0, 0.5, 0.8660254), spacing=(1.0, 2.0, 3.0), origin=(1.0, 2.0, 3.0))
    affine = placement(geometry)
    assert affine is not None
    read = nibabel.Nifti1Image.from_bytes(header((2, 3, 4), affine, INT16) + bytes(2 * 24))
    assert read.affine @ [0, 0, 1, 1] == pytest.approx([-1.0, -2.0 - 1.5, 3.0 + 3 * 0.8660254, 1])
    assert (int(read.header["sform_code"]), int(read.header["qform_code"])) == (1, 0)


def test_axes_that_are_no_unit_vectors_count_as_they_are() -> None:
    affine = placement(Geometry(x_axis=(2.0, 0.0, 0.0), spacing=(0.5, 1.0, 1.0)))
    assert affine is not None
    assert spacing_of(affine) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(y_axis=(1.0, 0.0, 0.0)),
        Geometry(spacing=(1.0, 1.0, 1e-12)),
        Geometry(origin=(float("nan"), 0.0, 0.0)),
        Geometry(spacing=(float("inf"), 1.0, 1.0)),
        Geometry(origin=(1e300, 0.0, 0.0)),
    ],
    ids=["two axes alike", "flat", "nan", "infinite", "beyond a float"],
)
def test_a_geometry_that_places_nothing_is_none(geometry: Geometry) -> None:
    assert placement(geometry) is None


def test_the_header_of_labels_lets_nobody_interpolate_them() -> None:
    data = header((2, 3, 4), UNPLACED, LABELS)
    assert len(data) == HEADER_BYTES
    read = nibabel.Nifti1Image.from_bytes(data + bytes(24))
    assert read.get_fdata().shape == (4, 3, 2)
    assert int(read.header["intent_code"]) == 1002  # NIFTI_INTENT_LABEL
    assert (float(read.header["cal_min"]), float(read.header["cal_max"])) == (0.0, 255.0)
    np.testing.assert_array_equal(read.affine, np.diag([-1, -1, 1, 1]))
