"""The greatest output of each voxel, as NumPy finds it."""

import numpy as np
import pytest
import torch

from services.worker.engine.argmax import Argmax

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8]


@pytest.mark.parametrize("dtype", DTYPES)
def test_labels_and_values_are_those_of_numpy(dtype: torch.dtype) -> None:
    # Given boxes of several sizes one after the other, parts of something larger, with many a tie
    whole = torch.from_numpy(np.random.default_rng(3).integers(0, 9, (5, 7, 20, 33))).to(dtype)
    boxes = [whole[:, 1:6, 2:9, 4:30], whole, whole[:2, :, :1], whole[:1, 3:4]]
    argmax = Argmax()
    for outputs in boxes:
        # When asked for the greatest, then the first of them wins, and its value is exact
        labels, greatest = argmax(outputs)
        expected = outputs.double().numpy()
        np.testing.assert_array_equal(labels.numpy(), expected.argmax(axis=0))
        np.testing.assert_array_equal(greatest.double().numpy(), expected.max(axis=0))


def test_whole_numbers_keep_every_digit() -> None:
    # Given outputs that single precision cannot tell apart
    outputs = torch.tensor([2**24, 2**24 + 1], dtype=torch.int32).view(2, 1, 1, 1)
    # When asked for the greatest, then it is the second
    labels, greatest = Argmax()(outputs)
    assert (labels.item(), greatest.item()) == (1, 2**24 + 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_the_greatest(value: float) -> None:
    outputs = torch.full((3, 1, 2, 40), -1.0)
    outputs[1, 0, 1, 17] = value
    labels, greatest = Argmax()(outputs)
    assert labels[0, 1, 17] == 1
    np.testing.assert_equal(greatest[0, 1, 17].item(), value)
    assert labels.sum() == 1


def test_nothing_but_minus_infinity_is_the_first() -> None:
    labels, greatest = Argmax()(torch.full((3, 1, 1, 20), float("-inf")))
    assert not labels.any()
    assert bool(torch.isneginf(greatest).all())
