"""The box: slices depth//4 to 3·depth//4, 60 by 60 pixels around the axial centre."""

import numpy as np
import pytest

from services.core.model_spec import ModelSpec, StructureSpec
from services.core.volumes import Shape
from services.worker.runtimes.phantom import middle_box
from tests.runtimes.running import segmented


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((100, 512, 512), ((25, 75), (226, 286), (226, 286))),
        ((40, 64, 200), ((10, 30), (2, 62), (70, 130))),
        ((1, 64, 64), ((0, 1), (2, 62), (2, 62))),
        ((2, 60, 60), ((0, 1), (0, 60), (0, 60))),
        ((3, 10, 1), ((0, 2), (0, 10), (0, 1))),
    ],
)
def test_the_box_is_in_the_middle(shape: Shape, box: tuple[tuple[int, int], ...]) -> None:
    assert middle_box(shape) == tuple(slice(start, stop) for start, stop in box)
    # and that is where it is drawn
    spec = ModelSpec("model", "phantom", structures=(StructureSpec("it"),), channels=("CT",))
    (mask,) = segmented(spec, np.zeros(shape, np.int16))
    expected = np.zeros(shape, np.bool_)
    expected[middle_box(shape)] = True
    np.testing.assert_array_equal(mask, expected)


def test_each_structure_lies_on_its_own_channels_grid() -> None:
    # Given two structures, the first on the second channel
    structures = (StructureSpec("a", channel_index=1), StructureSpec("b", channel_index=0))
    spec = ModelSpec("model", "phantom", structures=structures, channels=("A", "B"))
    # When the phantom segments, then each mask has the shape of its channel
    masks = segmented(spec, np.zeros((4, 70, 70), np.int16), np.zeros((9, 80, 90), np.int16))
    assert [mask.shape for mask in masks] == [(9, 80, 90), (4, 70, 70)]
    assert all(mask.any() for mask in masks)
