"""Scans from disk and masks back to disk: geometry above all."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.client.head_phantom import write_dicom_series
from services.client.itk import simple_itk
from services.client.scans import MaskNotWritten, UnreadableScan, read_scan, write_mask
from services.core.volumes import Geometry, Mask, Volume
from tests.client.conftest import SKEWED, MakeScan, image_of, ramp

BACKWARDS = [np.diag(signs).astype(float) for signs in ((1, -1, 1), (-1, -1, 1), (1, 1, -1), (-1, 1, 1))]
DIRECTIONS = [np.eye(3), *BACKWARDS, SKEWED, SKEWED[:, [2, 0, 1]], -SKEWED]


def patient_point(image: Any, i: int, j: int, k: int) -> NDArray[np.float64]:
    return np.array(image.TransformIndexToPhysicalPoint((i, j, k)))


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.nrrd", "scan.mha", "scan.mhd"])
@pytest.mark.parametrize("direction", DIRECTIONS, ids=range(len(DIRECTIONS)))
def test_geometry_and_voxels_are_those_of_the_file(make_scan: MakeScan, name: str, direction: Any) -> None:
    scan = make_scan(name=name, direction=direction)

    assert scan.volume.voxels.dtype == np.int16
    assert np.array_equal(scan.volume.voxels, ramp())
    affine = scan.volume.geometry.index_to_patient()
    for index in ((0, 0, 0), (5, 0, 0), (0, 4, 0), (0, 0, 3), (5, 4, 3)):
        expected = patient_point(image_of(ramp(), direction=direction), *index)
        assert np.allclose((affine @ (*index, 1))[:3], expected, atol=1e-4)


@given(
    turns=st.tuples(*[st.floats(-180, 180)] * 3),
    signs=st.tuples(*[st.sampled_from((-1, 1))] * 3),
    spacing=st.tuples(*[st.floats(0.2, 8)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mask_reopens_on_the_grid_of_its_scan(
    make_scan: MakeScan, tmp_path: Path, turns: Any, signs: Any, spacing: Any, origin: Any
) -> None:
    turn = simple_itk().Euler3DTransform()
    turn.SetRotation(*np.deg2rad(turns).tolist())
    direction = np.array(turn.GetMatrix()).reshape(3, 3) * signs
    scan = make_scan(direction=direction, spacing=spacing, origin=origin)
    mask = Mask.from_nonzero(scan.volume.voxels > 50)

    write_mask(mask, scan, tmp_path / "mask.nii.gz")

    reopened = read_scan(tmp_path / "mask.nii.gz").volume
    assert np.array_equal(reopened.voxels, mask.voxels)
    assert np.allclose(reopened.geometry.index_to_patient(), scan.volume.geometry.index_to_patient(), atol=2e-3)
    assert simple_itk().ReadImage(str(tmp_path / "mask.nii.gz")).GetPixelID() == simple_itk().sitkUInt8


def test_a_mask_of_another_shape_is_not_written(make_scan: MakeScan, tmp_path: Path) -> None:
    with pytest.raises(MaskNotWritten, match="6 × 5 × 3 voxels and the scan 6 × 5 × 4"):
        write_mask(Mask(np.zeros((3, 5, 6), np.uint8)), make_scan(), tmp_path / "mask.nii.gz")
    assert not (tmp_path / "mask.nii.gz").exists()


def test_a_mask_in_a_missing_folder_is_a_clear_fault(make_scan: MakeScan, tmp_path: Path) -> None:
    with pytest.raises(MaskNotWritten, match="could not be written"):
        write_mask(Mask(np.zeros((4, 5, 6), np.uint8)), make_scan(), tmp_path / "nowhere" / "mask.nii.gz")


# --- Values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_values_that_int16_can_hold_are_taken(make_scan: MakeScan, dtype: Any) -> None:
    scan = make_scan((ramp() + 20).astype(dtype))
    assert np.array_equal(scan.volume.voxels, ramp() + 20)


def test_fractions_are_rounded(make_scan: MakeScan) -> None:
    scan = make_scan((ramp() + 0.4).astype(np.float32))
    assert np.array_equal(scan.volume.voxels, ramp())


def test_values_beyond_int16_are_refused_with_their_range(make_scan: MakeScan) -> None:
    with pytest.raises(UnreadableScan, match=r"from 0 to 40000.*rescale"):
        make_scan(np.array([[[0, 40_000]]], np.uint16))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(make_scan: MakeScan, bad: float) -> None:
    with pytest.raises(UnreadableScan, match="not numbers"):
        make_scan(np.array([[[0, bad, 100]]], np.float32))


def test_a_normalized_scan_is_refused_rather_than_rounded_to_nothing(make_scan: MakeScan) -> None:
    with pytest.raises(UnreadableScan, match="fractions from 0 to 1"):
        make_scan(np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 3, 4))


# --- What is not a scan --------------------------------------------------------------------------------------


def test_a_flat_image_is_one_slice(tmp_path: Path) -> None:
    simple_itk().WriteImage(simple_itk().GetImageFromArray(ramp()[0]), str(tmp_path / "flat.nrrd"))
    assert read_scan(tmp_path / "flat.nrrd").volume.shape == (1, 5, 6)


def test_colour_and_time_series_are_refused(tmp_path: Path) -> None:
    colour = simple_itk().GetImageFromArray(np.zeros((2, 3, 4, 3), np.uint8), isVector=True)
    simple_itk().WriteImage(colour, str(tmp_path / "colour.nrrd"))
    over_time = simple_itk().JoinSeries([image_of(ramp()), image_of(ramp())])
    simple_itk().WriteImage(over_time, str(tmp_path / "time.nrrd"))
    with pytest.raises(UnreadableScan, match="3 values per voxel"):
        read_scan(tmp_path / "colour.nrrd")
    with pytest.raises(UnreadableScan, match="4 dimensions"):
        read_scan(tmp_path / "time.nrrd")


@pytest.mark.parametrize("name", ["damaged.nii.gz", "damaged.nrrd", "damaged.dcm", "notes.txt"])
def test_a_file_that_is_no_scan_is_a_clear_fault(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_bytes(b"not a scan at all " * 20)
    with pytest.raises(UnreadableScan):
        read_scan(tmp_path / name)
    assert capfd.readouterr().err == ""


def test_missing_and_empty_places_are_clear_faults(tmp_path: Path) -> None:
    with pytest.raises(UnreadableScan, match="does not exist"):
        read_scan(tmp_path / "nowhere")
    with pytest.raises(UnreadableScan, match="holds no DICOM images"):
        read_scan(tmp_path)


# --- DICOM ---------------------------------------------------------------------------------------------------


def write_series(folder: Path, seed: int = 0, geometry: Geometry | None = None) -> Volume:
    voxels = np.random.default_rng(seed).integers(-1000, 2000, (6, 8, 10)).astype(np.int16)
    volume = Volume(voxels, geometry or Geometry(origin=(-20, 15, -70), spacing=(0.5, 0.75, 3.0)))
    write_dicom_series(volume, folder)
    return volume


@pytest.mark.parametrize("direction", [np.eye(3), np.diag([-1.0, -1.0, 1.0]), np.diag([1.0, -1.0, -1.0]), SKEWED])
def test_a_dicom_series_comes_back_as_it_was_written(tmp_path: Path, direction: Any) -> None:
    x_axis, y_axis, z_axis = map(tuple, direction.T.tolist())
    written = write_series(tmp_path, geometry=Geometry((-20, 15, -70), x_axis, y_axis, z_axis, (0.5, 0.75, 3.0)))
    (tmp_path / "readme.txt").write_text("not DICOM")
    (tmp_path / "sub").mkdir()

    scan = read_scan(tmp_path)

    assert scan.modality == "CT"
    assert np.array_equal(scan.volume.voxels, written.voxels)
    assert np.allclose(scan.volume.geometry.index_to_patient(), written.geometry.index_to_patient(), atol=1e-5)


def test_one_file_of_a_series_stands_for_all_of_it(tmp_path: Path) -> None:
    written = write_series(tmp_path)
    write_series(tmp_path / "other", seed=1)
    for path in (tmp_path / "other").iterdir():
        path.rename(tmp_path / f"other_{path.name}")
    scan = read_scan(tmp_path / "slice_0003.dcm")
    assert np.array_equal(scan.volume.voxels, written.voxels)


def test_several_series_are_listed_and_one_can_be_chosen(tmp_path: Path) -> None:
    write_series(tmp_path)
    other = write_series(tmp_path / "other", seed=1)
    uid = simple_itk().ImageSeriesReader.GetGDCMSeriesIDs(str(tmp_path / "other"))[0]
    for path in (tmp_path / "other").iterdir():
        path.rename(tmp_path / f"other_{path.name}")

    with pytest.raises(UnreadableScan, match=rf"(?s)2 series; choose one with --series UID:.*{uid} .*CT, 6 slices"):
        read_scan(tmp_path)
    with pytest.raises(UnreadableScan, match=r"has no series 1\.2\.3"):
        read_scan(tmp_path, series="1.2.3")
    assert np.array_equal(read_scan(tmp_path, series=uid).volume.voxels, other.voxels)


def test_a_missing_slice_is_named_and_itk_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_series(tmp_path)
    (tmp_path / "slice_0003.dcm").unlink()
    with pytest.raises(UnreadableScan, match=r"6\.00 mm between slice_0002\.dcm and slice_0004\.dcm, 3\.00 mm"):
        read_scan(tmp_path)
    assert capfd.readouterr().err == ""


def test_two_images_at_one_position_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path)
    (tmp_path / "again.dcm").write_bytes((tmp_path / "slice_0002.dcm").read_bytes())
    with pytest.raises(UnreadableScan, match="more than one image at one position"):
        read_scan(tmp_path)


def test_a_gantry_tilt_is_refused(tmp_path: Path) -> None:
    # The slices are stacked along an axis that leans towards the feet-to-nose direction.
    tilted = Geometry(origin=(0, 0, 0), z_axis=(0.0, 0.3, float(np.sqrt(1 - 0.09))), spacing=(0.5, 0.5, 3.0))
    write_series(tmp_path, geometry=tilted)
    with pytest.raises(UnreadableScan, match="gantry tilt"):
        read_scan(tmp_path)


def test_a_localizer_in_the_series_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path)
    turned = Geometry(y_axis=(0, 0, -1), z_axis=(0, 1, 0))
    voxels = np.random.default_rng(0).integers(-1000, 2000, (6, 8, 10)).astype(np.int16)
    write_dicom_series(Volume(voxels, turned), tmp_path / "localizer")
    (tmp_path / "localizer" / "slice_0001.dcm").rename(tmp_path / "localizer.dcm")
    with pytest.raises(UnreadableScan, match="localizer"):
        read_scan(tmp_path)


def test_a_damaged_slice_is_a_fault_and_not_a_shorter_scan(tmp_path: Path) -> None:
    write_series(tmp_path)
    (tmp_path / "slice_0006.dcm").write_bytes(b"")
    with pytest.raises(UnreadableScan, match=r"slice_0006\.dcm.*damaged"):
        read_scan(tmp_path)


def test_a_slice_cut_off_in_transfer_is_a_fault(tmp_path: Path) -> None:
    write_series(tmp_path)
    path = tmp_path / "slice_0006.dcm"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(UnreadableScan, match="damaged"):
        read_scan(tmp_path)


def test_a_slice_that_may_not_be_read_is_a_fault_and_not_a_shorter_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path)
    closed = (tmp_path / "slice_0006.dcm").rename(tmp_path / "IM6")
    monkeypatch.setattr("services.client.itk.os.access", lambda path, mode: path != closed)
    with pytest.raises(UnreadableScan, match=r"IM6 may not be read.*permissions"):
        read_scan(tmp_path)


def test_a_single_slice_is_as_thick_as_it_says(tmp_path: Path) -> None:
    volume = write_series(tmp_path)
    for path in sorted(tmp_path.iterdir())[1:]:
        path.unlink()
    scan = read_scan(tmp_path)
    assert scan.volume.shape == (1, 8, 10)
    assert scan.volume.geometry.spacing == volume.geometry.spacing
