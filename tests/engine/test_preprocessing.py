"""What a model gets of a volume's values."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from services.core.errors import ModelFailed
from services.core.volumes import Geometry, Volume
from tests.engine.functions import drawn

RNG = np.random.default_rng(11)
CT = Volume(RNG.integers(-1024, 3000, (6, 7, 8)).astype(np.int16), channel_id="CT")
PET = Volume(RNG.integers(0, 100, (6, 7, 8)).astype(np.int16), channel_id="PET")


def seen(options: dict[str, Any], *volumes: Volume, call: str = "tensor") -> Tensor:
    """The batch that the model gets."""
    batches = []

    def look(batch: Tensor) -> Tensor:
        batches.append(batch.clone())
        return batch[:, :1]

    drawn(look, volumes, {"call": call, **options})
    return torch.cat(batches)


def test_a_volume_comes_as_it_is_unless_said_otherwise() -> None:
    batch = seen({}, CT)
    assert (batch.dtype, tuple(batch.shape)) == (torch.float32, (1, 1, 6, 7, 8))
    np.testing.assert_array_equal(batch[0, 0].numpy(), CT.voxels)


@pytest.mark.parametrize(
    ("preprocessing", "expected"),
    [
        ({"intensity_window": [-100, 200]}, lambda v: v.clip(-100, 200)),
        (
            {"intensity_window": [-100, 200], "normalisation": "unit_range"},
            lambda v: (v.clip(-100, 200) + 100) / 300,
        ),
        ({"normalisation": "unit_range"}, lambda v: (v - v.min()) / (v.max() - v.min())),
        ({"normalisation": "z_score"}, lambda v: (v - v.mean()) / v.std()),
        (
            {"intensity_window": [-100, 200], "normalisation": "z_score"},
            lambda v: (v.clip(-100, 200) - v.clip(-100, 200).mean()) / v.clip(-100, 200).std(),
        ),
        ({"normalisation": "mean_std", "mean": 40, "std": 250}, lambda v: (v - 40) / 250),
    ],
)
def test_values_are_scaled_as_said(preprocessing: dict[str, Any], expected: Any) -> None:
    batch = seen({"preprocessing": preprocessing}, CT)
    np.testing.assert_allclose(batch[0, 0], expected(CT.voxels.astype(np.float64)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("normalisation", ["unit_range", "z_score"])
def test_a_volume_of_one_value_becomes_zero(normalisation: str) -> None:
    volume = Volume(np.full((3, 3, 3), 17, np.int16), channel_id="CT")
    assert not seen({"preprocessing": {"normalisation": normalisation}}, volume).any()


def test_channels_come_in_their_order_each_with_its_own_scaling() -> None:
    options = {
        "preprocessing": {
            "channel_order": ["PET", "CT"],
            "normalisation": "unit_range",
            "channels": {"CT": {"intensity_window": [0, 100]}},
        }
    }
    batch = seen(options, CT, PET)
    np.testing.assert_allclose(batch[0, 0], (PET.voxels - PET.voxels.min()) / np.ptp(PET.voxels), rtol=1e-5)
    np.testing.assert_array_equal(batch[0, 1], CT.voxels.clip(0, 100))


def test_an_order_of_other_channels_is_refused() -> None:
    with pytest.raises(ModelFailed, match="channel_order names CT, MR, but the volumes are CT, PET"):
        seen({"preprocessing": {"channel_order": ["CT", "MR"]}}, CT, PET)


def test_beyond_a_volume_is_its_lowest_value_or_what_is_said() -> None:
    patch = {"patch": [10, 7, 8]}
    for outside, expected in ((None, float(CT.voxels.min())), (-7.0, -7.0)):
        batch = seen({"inference": patch, "preprocessing": {"outside": outside}}, CT, call="sliding_window")
        assert tuple(batch.shape) == (1, 1, 10, 7, 8)
        np.testing.assert_array_equal(batch[0, 0, 2:8], CT.voxels)
        assert (batch[0, 0, :2] == expected).all()
        assert (batch[0, 0, 8:] == expected).all()


def test_a_channel_that_covers_less_is_filled_up() -> None:
    small = Volume(np.full((2, 2, 2), 50, np.int16), Geometry(origin=(3.0, 2.0, 1.0)), channel_id="PET")
    batch = seen({"preprocessing": {"outside": -5}}, CT, small)
    expected = np.full(CT.voxels.shape, -5.0)
    expected[1:3, 2:4, 3:5] = 50
    np.testing.assert_allclose(batch[0, 1], expected, atol=1e-4)


def test_the_array_convention_gets_whole_numbers_that_it_may_change() -> None:
    before = CT.voxels.copy()

    def network(volume: Any) -> Any:
        assert (type(volume), volume.dtype, volume.shape) == (np.ndarray, np.int32, CT.voxels.shape)
        volume[...] = volume > 0
        return volume

    (mask,) = drawn(network, [CT], {"call": "array"})
    np.testing.assert_array_equal(mask, before > 0)
    np.testing.assert_array_equal(CT.voxels, before)


def test_no_patch_changes_what_the_next_one_gets() -> None:
    def spoiling(batch: Tensor) -> Tensor:
        scores = (batch > 0).float()
        batch.fill_(-1)
        return scores

    for volume in (CT, Volume(CT.voxels, Geometry(spacing=(2.0, 2.0, 2.0)), "CT")):
        options = {"call": "sliding_window", "inference": {"patch": [4, 4, 4], "overlap": 0.5}}
        (mask,) = drawn(spoiling, [volume], options)
        np.testing.assert_array_equal(mask, CT.voxels > 0)
