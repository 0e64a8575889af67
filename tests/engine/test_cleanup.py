"""Holes, pieces and small volumes of finished masks."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services.core.model_spec import StructureSpec
from services.core.volumes import Geometry, Volume
from tests.engine.functions import drawn

BALL, SHELL, DOT = 100, 200, 300


def scene() -> Volume:
    """A hollow cube, a small cube apart from it, and a single voxel; two millimetres to a voxel."""
    voxels = np.zeros((16, 20, 24), np.int16)
    voxels[2:9, 2:9, 2:9] = SHELL
    voxels[4:7, 4:7, 4:7] = 0
    voxels[11:14, 11:14, 11:14] = BALL
    voxels[1, 18, 22] = DOT
    return Volume(voxels, Geometry(spacing=(2.0, 2.0, 2.0)), "CT")


def found(postprocessing: dict[str, Any], structures: int = 1) -> list[NDArray[np.bool_]]:
    options = {"call": "tensor", "postprocessing": {"decision": "threshold", **postprocessing}}
    specs = [StructureSpec(f"it {index}", str(index)) for index in range(structures)]
    return drawn(lambda batch: batch.repeat(1, structures, 1, 1, 1), [scene()], options, specs)


def filled() -> NDArray[np.bool_]:
    hollow: NDArray[np.bool_] = scene().voxels > 0
    hollow[2:9, 2:9, 2:9] = True
    return hollow


@pytest.mark.parametrize(
    ("postprocessing", "expected"),
    [
        ({}, scene().voxels > 0),
        ({"fill_holes": True}, filled()),
        ({"largest_component": True}, scene().voxels == SHELL),
        (
            {"largest_component": True, "fill_holes": True},
            filled() & (scene().voxels != BALL) & (scene().voxels != DOT),
        ),
        ({"minimum_volume_mm3": 8.1}, scene().voxels % DOT > 0),  # a voxel is 8 mm³
        ({"minimum_volume_mm3": 8.0}, scene().voxels > 0),
        ({"minimum_volume_mm3": 27 * 8 + 1}, scene().voxels == SHELL),
        ({"minimum_volume_mm3": 1e9}, np.zeros((16, 20, 24), bool)),
    ],
)
def test_a_mask_is_cleaned_as_said(postprocessing: dict[str, Any], expected: NDArray[np.bool_]) -> None:
    (mask,) = found(postprocessing)
    np.testing.assert_array_equal(mask, expected)


def test_a_structure_may_have_its_own_rules() -> None:
    first, second = found({"largest_component": True, "structures": {"it 1": {"fill_holes": True}}}, structures=2)
    np.testing.assert_array_equal(first, scene().voxels == SHELL)
    np.testing.assert_array_equal(second, filled())


def test_pieces_that_touch_at_a_corner_are_one() -> None:
    voxels = np.zeros((4, 4, 4), np.int16)
    voxels[0, 0, 0] = voxels[1, 1, 1] = voxels[3, 3, 3] = 1
    options = {"call": "tensor", "postprocessing": {"largest_component": True}}
    (mask,) = drawn(lambda batch: batch, [Volume(voxels, channel_id="CT")], options)
    assert np.argwhere(mask).tolist() == [[0, 0, 0], [1, 1, 1]]


def test_nothing_stays_nothing() -> None:
    options = {"call": "tensor", "postprocessing": {"largest_component": True, "fill_holes": True}}
    (mask,) = drawn(lambda batch: batch * 0, [scene()], options)
    assert not mask.any()
