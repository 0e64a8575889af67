"""The synthetic head: the same every time, the same head at every resolution, and CT-like values."""

import locale
from pathlib import Path

import numpy as np

from services.client.head_phantom import make_head_ct, write_dicom_series
from services.client.itk import simple_itk

SHAPE = (18, 64, 60)


def test_a_seed_makes_the_same_head() -> None:
    one, same, other = make_head_ct(SHAPE, seed=3), make_head_ct(SHAPE, seed=3), make_head_ct(SHAPE, seed=4)
    assert np.array_equal(one.voxels, same.voxels)
    assert not np.array_equal(one.voxels, other.voxels)


def test_the_head_fills_its_field_of_view_in_millimetres() -> None:
    volume = make_head_ct(SHAPE)
    assert volume.shape == SHAPE
    assert volume.voxels.dtype == np.int16
    assert np.allclose(np.multiply(volume.geometry.spacing, SHAPE[::-1]), (250, 250, 180))


def test_tissues_are_where_a_head_has_them() -> None:
    volume = make_head_ct(SHAPE)
    depth, height, width = SHAPE
    # Given the slice through the ventricles: air around, bone, and brain in the middle
    plane = volume.voxels[depth // 2 + 2].astype(int)
    assert plane[0, 0] < -950
    assert plane.max() > 800
    brain = plane[height // 2 - 4 : height // 2 + 4, width // 2 - 8 : width // 2 + 8]
    assert 0 < brain.mean() < 60
    # And a nose in front of the middle, but none behind
    low = volume.voxels[depth // 2 - 4] > -300
    rows = np.flatnonzero(low[:, width // 2])
    assert rows.min() < 0.15 * height


def test_the_head_is_one_size_at_every_resolution() -> None:
    coarse, fine = make_head_ct((12, 40, 40)), make_head_ct((24, 80, 80))
    volumes = [np.count_nonzero(v.voxels > -300) * v.geometry.voxel_volume_mm3 for v in (coarse, fine)]
    assert abs(volumes[0] / volumes[1] - 1) < 0.05


def test_the_series_is_ct_of_a_patient_who_is_clearly_none(tmp_path: Path) -> None:
    write_dicom_series(make_head_ct((3, 16, 16)), tmp_path)
    headers = []
    for path in sorted(tmp_path.iterdir()):
        reader = simple_itk().ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        headers.append({key: reader.GetMetaData(key).strip(" \0") for key in reader.GetMetaDataKeys()})
    assert len(headers) == 3
    for header in headers:
        assert header["0008|0016"] == "1.2.840.10008.5.1.4.1.1.2"
        assert header["0008|0060"] == "CT"
        assert header["0010|0010"] == "PHANTOM^HEAD"
        assert (header["0028|1052"], header["0028|1053"]) == ("-1024", "1")
        assert header["0018|0050"] == "60"
    for key in ("0020|000d", "0020|000e", "0020|0052"):
        assert len({header[key] for header in headers}) == 1
        assert len(headers[0][key]) <= 64
    assert len({header["0008|0018"] for header in headers}) == 3
    assert [header["0020|0013"] for header in headers] == ["1", "2", "3"]


def test_writing_dicom_leaves_the_locale_as_it_was(tmp_path: Path) -> None:
    before = locale.setlocale(locale.LC_ALL)
    write_dicom_series(make_head_ct((4, 32, 32)), tmp_path)
    assert locale.setlocale(locale.LC_ALL) == before
