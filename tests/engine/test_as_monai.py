"""What the engine does to volumes and masks by itself is what MONAI's transforms do, but where it is said here.

MONAI's arrays are (channels, x, y, z) and its patient is RAS; ours are (depth, height, width) in LPS.
"""

from typing import Any

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.intensity.array import NormalizeIntensity, ScaleIntensity, ScaleIntensityRange
from monai.transforms.post.array import FillHoles, KeepLargestConnectedComponent, RemoveSmallObjects
from monai.transforms.spatial.array import Orientation, Spacing, SpatialResample
from numpy.typing import NDArray
from torch import Tensor

from services.core.checked_options import model_options
from services.core.volumes import Geometry, Shape, Vector, Volume
from services.worker.engine.grids import Grid
from services.worker.engine.preprocessing import ModelInput, model_input
from tests.engine.functions import drawn
from tests.engine.test_geometry import DIRECTIONS, geometry

CPU = torch.device("cpu")
DOUBLE: Any = torch.float64
RAS_OF_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
LABELS = (("L", "R"), ("P", "A"), ("I", "S"))
SHAPE: Shape = (13, 18, 23)
"""Odd and even, no two alike."""
INDEX_ROUNDING = 1e-5
"""In voxels: an index is kept in single precision, here of some tens."""
FACE = 0.5
"""Of a voxel, from its centre."""
STEP = 2000
"""Between two voxels at most."""
INTERPOLATION = 3 * INDEX_ROUNDING * STEP
"""What that makes along three axes."""
SMALL_VOXEL: Vector = (0.5, 2.0, 1.5)
"""One and a half cubic millimetres."""


def scan(direction: str, shape: Shape = SHAPE) -> Volume:
    voxels = np.random.default_rng(5).integers(-STEP // 2, STEP // 2, shape).astype(np.int16)
    return Volume(voxels, geometry(DIRECTIONS[direction], shape=shape), "CT")


def for_monai(volume: Volume) -> MetaTensor:
    return MetaTensor(as_theirs(volume.voxels), affine=torch.from_numpy(affine_of(Grid.of_volume(volume))))


def as_theirs(voxels: NDArray[Any]) -> Tensor:
    return torch.from_numpy(voxels.transpose(2, 1, 0)[None].copy()).double()


def as_ours(image: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = np.asarray(image)[0].transpose(2, 1, 0)
    return array


def affine_of(grid: Grid) -> NDArray[np.float64]:
    """From MONAI's index to MONAI's patient."""
    affine: NDArray[np.float64] = RAS_OF_LPS @ grid.affine[:, [2, 1, 0, 3]]
    return affine


def resampled_by_monai(image: MetaTensor, grid: Grid, padding: str = "border") -> NDArray[np.float64]:
    transform: Any = SpatialResample(padding_mode=padding, align_corners=False, dtype=DOUBLE)
    return as_ours(transform(image, affine_of(grid), grid.shape[::-1]))


def given(*volumes: Volume, **preprocessing: Any) -> ModelInput:
    return model_input(model_options("pytorch", {"call": "tensor", "preprocessing": preprocessing}), volumes, CPU)


def seen(data: ModelInput) -> NDArray[np.float32]:
    """What the model gets of the last channel."""
    array: NDArray[np.float32] = data.patch((0, 0, 0), data.grid.shape)[-1].numpy()
    return array


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "PIR", "SLA"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_turned_axes_are_those_of_orientation(direction: str, orientation: str) -> None:
    volume = scan(direction)
    data = given(volume, orientation=orientation)
    expected = Orientation(axcodes=orientation, labels=LABELS)(for_monai(volume))
    assert isinstance(expected, MetaTensor)
    # The same voxels in the same order, in the same place
    np.testing.assert_array_equal(seen(data), as_ours(expected.as_tensor()))
    np.testing.assert_allclose(affine_of(data.grid), expected.affine, atol=1e-9)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.3, 1.9, 3.1), (0.7, 0.8, 0.9), (1.1, 5.0, 1.7)])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_spacing_makes_as_many_voxels_as_spacing_does(direction: str, spacing: Vector) -> None:
    """With `scale_extent`, which like ours covers the volume's faces, not its centres.

    Where no whole number of voxels does, MONAI's begin at the volume's first face, and ours stay around its centre.
    """
    volume = scan(direction)
    grid = given(volume, spacing=spacing).grid
    expected = Spacing(spacing, scale_extent=True, align_corners=False, dtype=DOUBLE)(for_monai(volume))
    assert isinstance(expected, MetaTensor)
    assert tuple(expected.shape[1:]) == grid.shape[::-1]
    np.testing.assert_allclose(affine_of(grid)[:3, :3], np.asarray(expected.affine)[:3, :3], atol=1e-9)
    centre = np.array([*(np.array(grid.shape[::-1]) - 1), 2.0]) / 2
    middle = np.array([*(np.array(volume.shape[::-1]) - 1), 2.0]) / 2
    np.testing.assert_allclose(affine_of(grid) @ centre, affine_of(Grid.of_volume(volume)) @ middle, atol=1e-9)
    index_of_monai = np.linalg.solve(np.asarray(expected.affine), affine_of(grid)) @ centre
    # What rounding takes or adds is half a voxel at most, of which half lies on either side
    assert np.abs(index_of_monai - centre).max() <= 0.25 + 1e-9


@pytest.mark.parametrize("spacing", [None, (2.3, 1.9, 3.1), (0.7, 0.8, 0.9)])
@pytest.mark.parametrize("other", ["the same", "oblique"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_resampled_values_are_those_of_spatial_resample(direction: str, other: str, spacing: Vector | None) -> None:
    # Given a volume that comes on a grid of its own, or its model's first on another spacing
    volume = scan(direction)
    data = given(*([] if other == "the same" else [scan(other)]), volume, orientation="LPS", spacing=spacing)
    # When MONAI fills the same grid
    expected = resampled_by_monai(for_monai(volume), data.grid)
    # Then it holds the same, up to the volume's outer faces: half a voxel beyond the outer centres
    off = beyond_centres(volume, data.grid)
    inside = off < FACE - INDEX_ROUNDING
    assert inside.mean() > 0.3
    np.testing.assert_allclose(seen(data)[inside], expected[inside], atol=INTERPOLATION)
    # and beyond them ours is the volume's lowest value, where MONAI repeats the border for ever
    assert (seen(data)[off > FACE + INDEX_ROUNDING] == volume.voxels.min()).all()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_masks_come_back_as_by_spatial_resample_and_a_half(direction: str) -> None:
    # Given a model that works on a grid of its own, and marks half of what it sees there
    volume = scan(direction)
    answers = []

    def marks(batch: Tensor) -> Tensor:
        answers.append((batch > 0).float())
        return answers[-1]

    options = {"orientation": "LPS", "spacing": (0.7, 0.8, 0.9)}
    (mask,) = drawn(marks, [volume], {"call": "tensor", "preprocessing": options})
    # When MONAI brings its marks back to the volume's grid
    grid = given(volume, **options).grid
    marked = MetaTensor(as_theirs(answers[0][0, 0].numpy()), affine=torch.from_numpy(affine_of(grid)))
    values = resampled_by_monai(marked, Grid.of_volume(volume))
    # Then the mask is where at least a half comes back, but where rounding decides
    clear = np.abs(values - 0.5) > 1e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(mask[clear], values[clear] > 0.5)


@pytest.mark.parametrize("direction", ["axial", "coronal, left-handed", "oblique, negated and swapped"])
def test_monais_zeros_differ_in_the_outer_half_voxel_only(direction: str) -> None:
    """There they mix in zero, which in a CT is water: a reason for filling by ourselves."""
    volume = Volume(np.full(SHAPE, STEP, np.int16), scan(direction).geometry, "CT")
    data = given(volume, orientation="LPS", spacing=(0.7, 0.8, 0.9), outside=0)
    expected = resampled_by_monai(for_monai(volume), data.grid, "zeros")
    off = beyond_centres(volume, data.grid)
    centres, rim = off < -INDEX_ROUNDING, (off > INDEX_ROUNDING) & (off < FACE - INDEX_ROUNDING)
    np.testing.assert_allclose(seen(data)[centres], expected[centres], atol=INTERPOLATION)
    # Half of the value is gone where one axis reaches its face, an eighth remains where three do
    np.testing.assert_allclose(seen(data)[rim], STEP, rtol=1e-6)
    assert expected[rim].min() >= STEP / 8 - 1
    assert expected[rim].min() < STEP * 0.6


def beyond_centres(volume: Volume, grid: Grid) -> NDArray[np.float64]:
    """How far each voxel of `grid` lies beyond the outer centres of `volume`, in its voxels, along the worst axis."""
    index = np.stack([*np.indices(grid.shape), np.ones(grid.shape)], axis=-1)
    own = (index @ Grid.of_volume(volume).from_index_of(grid).T)[..., :3]
    off: NDArray[np.float64] = np.maximum(-own, own - (np.array(volume.shape) - 1)).max(axis=-1)
    return off


@pytest.mark.parametrize(
    ("preprocessing", "monai"),
    [
        ({"intensity_window": [-300, 200]}, ScaleIntensityRange(-300, 200, -300, 200, clip=True)),
        (
            {"intensity_window": [-300, 200], "normalisation": "unit_range"},
            ScaleIntensityRange(-300, 200, 0, 1, clip=True),
        ),
        ({"normalisation": "unit_range"}, ScaleIntensity(0, 1)),
        ({"normalisation": "z_score"}, NormalizeIntensity()),
        ({"normalisation": "mean_std", "mean": 40, "std": 250}, NormalizeIntensity(np.array(40), np.array(250))),
    ],
)
def test_values_are_scaled_as_monai_scales_them(preprocessing: dict[str, Any], monai: Any) -> None:
    """But for the order of roundings: a model gets single precision."""
    volume = scan("axial")
    expected = as_ours(monai(as_theirs(volume.voxels).float()))
    np.testing.assert_allclose(seen(given(volume, **preprocessing)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normalisation", ["unit_range", "z_score"])
def test_a_volume_of_one_value_is_zero_to_both(normalisation: str) -> None:
    voxels = np.full(SHAPE, -1024, np.int16)
    monai: Any = ScaleIntensity(0, 1) if normalisation == "unit_range" else NormalizeIntensity()
    assert not np.asarray(monai(as_theirs(voxels).float())).any()
    assert not seen(given(Volume(voxels, channel_id="CT"), normalisation=normalisation)).any()


SPECKLES = [(filled, shape) for filled in (0.1, 0.3, 0.62) for shape in ((13, 18, 23), (1, 18, 23), (7, 1, 5))]


@pytest.mark.parametrize(("filled", "shape"), SPECKLES)
@pytest.mark.parametrize(
    ("cleanup", "monai"),
    [
        # All 26 neighbours in both, and the first of equally large pieces
        ({"largest_component": True}, KeepLargestConnectedComponent()),
        # A hole leaks through faces only, a connectivity of one; MONAI's default lets it leak through corners too
        ({"fill_holes": True}, FillHoles(connectivity=1)),
    ],
    ids=["largest", "holes"],
)
def test_masks_are_cleaned_as_monai_cleans_them(
    cleanup: dict[str, Any], monai: Any, filled: float, shape: Shape
) -> None:
    speckled = speckles(filled, shape)
    expected = np.asarray(monai(speckled[None].astype(np.uint8)))[0]
    np.testing.assert_array_equal(cleaned(speckled, cleanup), expected > 0)


@pytest.mark.filterwarnings("ignore:Parameter `min_size`:FutureWarning")  # of scikit-image, about MONAI's call
@pytest.mark.parametrize(("filled", "shape"), SPECKLES)
def test_small_pieces_are_dropped_as_by_monai_but_for_those_at_the_limit(filled: float, shape: Shape) -> None:
    """MONAI keeps or drops a piece of just the limit as the version of scikit-image has it; ours is always kept.

    And it counts neighbours at faces only, unless it is told otherwise.
    """
    speckled = speckles(filled, shape)
    of_nine_voxels, of_eight = (
        np.asarray(
            RemoveSmallObjects(limit, connectivity=3, by_measure=True, pixdim=SMALL_VOXEL)(speckled[None].astype(bool))
        )[0]
        for limit in (13, 12)
    )
    mask = cleaned(speckled, {"minimum_volume_mm3": 13.0})
    assert not (of_nine_voxels & ~mask).any()
    assert not (mask & ~of_eight).any()


def speckles(filled: float, shape: Shape) -> NDArray[np.int16]:
    """Noise, with holes and pieces of every kind and size."""
    return (np.random.default_rng(9).random(shape) < filled).astype(np.int16)


def cleaned(speckled: NDArray[np.int16], cleanup: dict[str, Any]) -> NDArray[np.bool_]:
    volume = Volume(speckled, Geometry(spacing=SMALL_VOXEL), "CT")
    (mask,) = drawn(lambda batch: batch, [volume], {"call": "tensor", "postprocessing": cleanup})
    return mask
