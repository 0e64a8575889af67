"""Contact sheets: which way up, which slices, which grey values, and names of any kind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from services.client.contact_sheet import MOST_SLICES, chosen_slices, grey_window, millilitres, write_contact_sheet
from services.client.slice_view import slice_position, view_of
from services.core.catalogue import Color, Structure
from services.core.volumes import Geometry, Mask
from tests.client.conftest import SKEWED, MakeScan

X, Y, Z = np.eye(3)


def geometry(x: Any, y: Any, z: Any) -> Geometry:
    x_axis, y_axis, z_axis = ((float(axis[0]), float(axis[1]), float(axis[2])) for axis in (x, y, z))
    return Geometry((0.0, 0.0, 0.0), x_axis, y_axis, z_axis, (0.5, 0.75, 2.0))


@pytest.mark.parametrize(
    ("axes", "sides"),
    [
        ((X, Y, Z), "RLAP"),
        ((X, -Y, Z), "RLAP"),
        ((-X, Y, Z), "RLAP"),
        ((-X, -Y, -Z), "RLAP"),
        ((Y, X, Z), "RLAP"),
        ((-Y, X, Z), "RLAP"),
        ((X, -Z, Y), "RLSI"),
        ((-X, Z, Y), "RLSI"),
        ((Y, -Z, X), "APSI"),
        ((-Z, Y, X), "APSI"),
    ],
)
def test_slices_are_shown_the_radiological_way_whatever_way_the_axes_run(axes: Any, sides: str) -> None:
    grid = geometry(*axes)
    view = view_of(grid)
    assert view.left + view.right + view.top + view.bottom == sides

    # Then the label on the right is where patient coordinates grow along the columns that are shown.
    affine = grid.index_to_patient()[:3, :3]
    positions = np.array([[affine @ (i, j, 0) for i in range(4)] for j in range(3)])
    towards = {"L": X, "P": Y, "S": Z, "R": -X, "A": -Y, "I": -Z}
    along_right = np.array([view.shown(plane) for plane in np.moveaxis(positions, 2, 0)])
    steps = along_right[:, 0, 1] - along_right[:, 0, 0], along_right[:, 1, 0] - along_right[:, 0, 0]
    assert np.dot(steps[0], towards[view.right]) > 0
    assert np.dot(steps[1], towards[view.bottom]) > 0
    width, height = np.linalg.norm(steps[0]), np.linalg.norm(steps[1])
    assert view.pixel_aspect == pytest.approx(height / width)


def test_oblique_slices_are_labelled_with_every_side_they_lean_to() -> None:
    view = view_of(geometry(*SKEWED.T))
    assert view.right == "LPS"
    assert view.left == "RAI"


def test_positions_are_told_along_the_patient() -> None:
    grid = Geometry(origin=(0, 0, -10), spacing=(1, 1, 2.5))
    assert slice_position(grid, view_of(grid), 0) == "I 10.0 mm"
    assert slice_position(grid, view_of(grid), 6) == "S 5.0 mm"


def mask_on(shape: tuple[int, int, int], *slices: int) -> Mask:
    voxels = np.zeros(shape, np.uint8)
    voxels[list(slices), 1, 1] = 1
    return Mask(voxels)


def test_slices_are_spread_over_the_structures_with_a_margin() -> None:
    masks = [mask_on((100, 3, 3), 40), mask_on((100, 3, 3), 42)]
    assert chosen_slices(masks, 100) == [39, 40, 41, 42, 43]


def test_all_of_the_scan_is_shown_where_nothing_is_drawn() -> None:
    assert chosen_slices([mask_on((7, 3, 3))], 7) == list(range(7))
    many = chosen_slices([], 100)
    assert len(many) == MOST_SLICES
    assert (many[0], many[-1]) == (0, 99)


def test_a_structure_at_the_end_of_the_scan_leaves_no_slice_outside() -> None:
    assert chosen_slices([mask_on((3, 3, 3), 0, 2)], 3) == [0, 1, 2]
    assert chosen_slices([mask_on((1, 3, 3), 0)], 1) == [0]


def test_ct_is_windowed_for_what_is_drawn(make_scan: MakeScan) -> None:
    voxels = np.full((4, 16, 16), -1000, np.int16)
    voxels[:, 4:12, 4:12] = 40
    voxels[:, 4:12, 8:12] = 900
    scan = make_scan(voxels)
    bone, brain = Mask.from_nonzero(voxels == 900), Mask.from_nonzero(voxels == 40)
    assert grey_window(scan, [(Structure("bone"), bone)]) == (-450.0, 1300.0)
    assert grey_window(scan, [(Structure("brain"), brain)]) == (-160.0, 240.0)


@pytest.mark.parametrize("value", [0, 7, -32768])
def test_a_scan_of_one_value_still_has_a_window(make_scan: MakeScan, value: int) -> None:
    black, white = grey_window(make_scan(np.full((2, 3, 4), value, np.int16)), [])
    assert black < white


@pytest.mark.parametrize(
    "name", ["", "$x^$ \\frac", "左肺", "a\nb\x1b[31m", "A very long name of a structure that nobody can read at once"]
)
def test_any_name_can_be_drawn(make_scan: MakeScan, tmp_path: Path, name: str) -> None:
    scan = make_scan()
    mask = Mask.from_nonzero(scan.volume.voxels > 40)
    write_contact_sheet(scan, [(Structure(name, color=Color(300, 0, 0)), mask)], tmp_path / "sheet.png")
    assert imread(tmp_path / "sheet.png").shape[1] == 1800


def test_a_structure_is_drawn_in_its_colour_on_its_side_of_the_patient(make_scan: MakeScan, tmp_path: Path) -> None:
    # Given a y axis that runs backwards, and a structure in front on the patient's left
    tissue = np.full((1, 40, 40), 100, np.int16)
    tissue[:, 20, 20] = 0
    scan = make_scan(tissue, direction=np.diag([1.0, -1.0, 1.0]), spacing=(1, 1, 1))
    voxels = np.zeros((1, 40, 40), np.uint8)
    voxels[:, 28:36, 28:36] = 1
    # When it is drawn
    write_contact_sheet(scan, [(Structure("spot", color=Color(0, 255, 0)), Mask(voxels))], tmp_path / "sheet.png")
    # Then the green is in the upper right quarter of the only tile
    picture = imread(tmp_path / "sheet.png")[:, :, :3]
    tile = picture[100:1800]
    rows, columns = np.nonzero((tile[:, :, 1] > 0.8) & (tile[:, :, 0] < 0.3))
    assert columns.min() > 900
    assert rows.max() < 850


def test_many_structures_fit_under_the_slices(make_scan: MakeScan, tmp_path: Path) -> None:
    scan = make_scan()
    empty = Mask(np.zeros(scan.volume.shape, np.uint8))
    write_contact_sheet(scan, [(Structure(f"structure {n}"), empty) for n in range(40)], tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").exists()


def test_volume_is_that_of_the_voxels() -> None:
    assert millilitres(mask_on((10, 3, 3), *range(8)), Geometry(spacing=(5, 5, 10))) == pytest.approx(2.0)
