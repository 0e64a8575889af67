"""Features are those of the whole volume, whatever the slabs; lengths are millimetres."""

import tracemalloc

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from services.core.errors import InvalidModelInput
from services.core.model_choices import FEATURES
from services.core.model_options import ModelOptions
from services.core.volumes import Geometry, Volume
from services.worker.engine import features as module
from services.worker.engine.features import column_names, feature_slabs
from services.worker.engine.preprocessing import ModelInput, model_input
from tests.runtimes.whole_features import whole_features

ALL = ("intensity", "position", *(f"{kind}:{scale}" for kind in FEATURES[2:] for scale in ("1.2", "4")))
OBLIQUE = Geometry((-20, 5, 300.5), (0.8, 0.6, 0), (-0.6, 0.8, 0), (0, 0, -1), (0.9, 1.1, 2.5))
SCALED = {"preprocessing": {"intensity_window": [-500, 600], "normalisation": "z_score"}}


def noise(shape: tuple[int, int, int] = (13, 11, 9), seed: int = 1) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-1000, 1000, shape, np.int16)


def given(*arrays: NDArray[np.int16], geometry: Geometry = OBLIQUE, options: object = None) -> ModelInput:
    volumes = [Volume(array, geometry, str(index)) for index, array in enumerate(arrays)]
    return model_input(ModelOptions.model_validate(options or {}), volumes, torch.device("cpu"))


def rows_of(data: ModelInput, *features: str) -> NDArray[np.float32]:
    return np.concatenate([rows for _, _, rows in feature_slabs(data, features)])


def test_columns_come_channel_by_channel_and_position_once() -> None:
    names = column_names(("intensity", "position", "gaussian:2"), ("CT", "PET"))
    assert names == ["CT intensity", "x", "y", "z", "CT gaussian:2", "PET intensity", "PET gaussian:2"]
    assert column_names(("position", "mean:1"), ()) == ["x", "y", "z", "mean:1"]


@pytest.mark.parametrize("slices", [1, 2, 5])
@pytest.mark.parametrize("options", [{}, SCALED], ids=["as sent", "scaled"])
def test_slabs_make_no_difference_at_all(slices: int, options: object, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given the features of a volume in one slab
    data = given(noise(), noise(seed=2), options=options)
    ((first, stop, whole),) = feature_slabs(data, ALL)
    assert (first, stop) == (0, 13)
    # When they are computed some slices at a time
    monkeypatch.setattr(module, "SLAB_VOXELS", slices * 11 * 9)
    slabs = list(feature_slabs(data, ALL))
    # Then they are the same, bit for bit
    assert len(slabs) == -(-13 // slices)
    for first, stop, rows in slabs:
        np.testing.assert_array_equal(rows, whole[first * 11 * 9 : stop * 11 * 9])


@pytest.mark.parametrize("feature", ALL)
def test_a_feature_is_what_scipy_computes_for_the_whole_volume(feature: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLAB_VOXELS", 3 * 11 * 9)
    volume = noise()
    wanted = whole_features([volume], [feature], OBLIQUE)
    rows = rows_of(given(volume), feature)
    if feature.partition(":")[0] in {"mean", "deviation"}:  # whose rounding depends on how sums are made
        np.testing.assert_allclose(rows, wanted, rtol=1e-6, atol=1e-4)
    else:
        np.testing.assert_array_equal(rows, wanted)


def test_at_a_millimetre_to_a_voxel_they_are_scipys_named_ones() -> None:
    volume = noise()
    rows = rows_of(given(volume, geometry=Geometry()), "gradient:1.5", "laplacian:1.5")
    gradient = ndimage.gaussian_gradient_magnitude(volume.astype(np.float32), 1.5)
    laplacian = ndimage.gaussian_laplace(volume.astype(np.float32), 1.5)
    np.testing.assert_allclose(rows, np.stack([gradient.ravel(), laplacian.ravel()], 1), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("axis", range(3))
def test_derivatives_are_per_millimetre(axis: int) -> None:
    # Given values that rise by 3 a millimetre, and ones that are twice the square of the millimetres
    geometry = Geometry(spacing=(1.5, 2, 2.5))
    millimetres = np.indices((40, 40, 40))[axis] * geometry.spacing[2 - axis]
    middle = (20 * 40 + 20) * 40 + 20
    # Then the gradient is 3 and the laplacian 4
    ramp, bowl = (3 * millimetres).round(), 2 * (millimetres - millimetres.max() / 2) ** 2
    gradient = rows_of(given(ramp.astype(np.int16), geometry=geometry), "gradient:5")
    laplacian = rows_of(given(bowl.round().astype(np.int16), geometry=geometry), "laplacian:5")
    assert gradient[middle] == pytest.approx(3, rel=0.02)
    assert laplacian[middle] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("value", [0, -1000, 32767, -32768])
def test_a_flat_region_deviates_by_nothing(value: int) -> None:
    rows = rows_of(given(np.full((9, 9, 9), value, np.int16)), "deviation:4")
    assert not rows.any()


def test_they_are_computed_on_preprocessed_values() -> None:
    volume = noise()
    options = {"preprocessing": {"intensity_window": [-100, 100], "normalisation": "unit_range"}}
    scaled = ((volume.clip(-100, 100).astype(np.float32) + 100) * np.float32(1 / 200)).astype(np.float32)
    rows = rows_of(given(volume, options=options), "intensity", "maximum:1")
    np.testing.assert_allclose(rows, whole_features([scaled], ["intensity", "maximum:1"], OBLIQUE), rtol=1e-6)


def test_they_lie_on_the_models_grid() -> None:
    # Given a model that works with z downwards and at two millimetres
    options = {"preprocessing": {"orientation": "LPI", "spacing": [2, 2, 2]}}
    data = given(noise((10, 12, 14)), geometry=Geometry((10, 20, 30)), options=options)
    # Then there is a row for each of its voxels, with their own places: z falls from the top of the volume's box
    rows = rows_of(data, "position")
    assert rows.shape == (5 * 6 * 7, 3)
    np.testing.assert_allclose(rows[0], [10.5, 20.5, 38.5])
    np.testing.assert_allclose(rows[-1], [22.5, 30.5, 30.5])


def test_memory_does_not_grow_with_the_number_of_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given slabs of at most 2^18 values, and one thread: which of several overlap is chance
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(module, "SLAB_VALUES", 2**18)
    monkeypatch.setattr(module, "SLAB_VOXELS", 2**18)
    features = ("intensity", "gaussian:2", "gradient:1", "deviation:2", "maximum:1", "position")
    peaks = []
    for depth in (60, 240):
        data = given(noise((depth, 64, 64)), geometry=Geometry())
        tracemalloc.start()
        # When all features of a volume are computed, then no slab is larger
        for _, _, rows in feature_slabs(data, features):
            assert rows.size <= 2**18
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Then four times the slices take no more memory
    assert peaks[1] < 1.5 * peaks[0] < 2**24


@pytest.mark.parametrize("spacing", [(0.0, 1, 1), (1, 1, 1e-9)])
def test_a_spacing_without_sense_is_refused(spacing: tuple[float, float, float]) -> None:
    data = given(noise(), geometry=Geometry(spacing=spacing))
    with pytest.raises(InvalidModelInput, match=r"gaussian:2 is in millimetres.*spacing of .* cannot be right"):
        rows_of(data, "intensity", "gaussian:2")
