"""Sums in one pass over memory are PyTorch's to the last bit, and the greatest output of each voxel is NumPy's."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from services.worker.engine import compiled
from services.worker.engine.sums import Sums

FLOATS = [torch.float32, torch.float16, torch.bfloat16]
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8]
DTYPES = [*FLOATS, torch.float64, *INTEGERS, torch.bool]


@pytest.fixture(params=["compiled", "PyTorch"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who works sums out. Compiled code takes several threads for the smallest of them."""
    if request.param == "PyTorch":
        monkeypatch.setattr(compiled, "is_available", lambda: False)
    elif not compiled.is_available():
        pytest.skip("the engine's sums are not compiled for this processor")
    monkeypatch.setattr(compiled, "ENOUGH", 1)
    return str(request.param)


def labels_of(sums: Sums) -> tuple[Tensor, bool]:
    """The greatest output of each voxel, which stands for its own bits, and whether all are finite."""
    planes, finite = sums.greatest(torch.arange(len(sums.scores), dtype=torch.uint8)[None])
    return planes[0], finite


# --- Which is the greatest -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_greatest_are_those_of_numpy(dtype: torch.dtype, how: str) -> None:
    # Given boxes of several sizes, parts of something larger, with many a tie
    whole = torch.from_numpy(np.random.default_rng(3).integers(0, 9, (5, 7, 20, 33))).to(dtype)
    for outputs in [
        whole[:, :0],
        whole[..., :0],
        whole[:, 1:6, 2:9, 4:30],
        whole,
        whole[:2, :, :1],
        whole[:1, 3:4],
        whole.transpose(1, 3),
    ]:
        # When asked for the greatest, then it is the first of them
        labels, finite = labels_of(Sums(outputs))
        np.testing.assert_array_equal(labels.numpy(), outputs.double().numpy().argmax(axis=0))
        assert finite


def test_whole_numbers_keep_every_digit(how: str) -> None:
    # Given outputs that single precision cannot tell apart
    outputs = torch.tensor([2**24, 2**24 + 1], dtype=torch.int32).view(2, 1, 1, 1)
    # When asked for the greatest, then it is the second
    assert labels_of(Sums(outputs))[0].item() == 1


def test_bits_are_those_of_every_plane(how: str) -> None:
    outputs = torch.from_numpy(np.random.default_rng(4).standard_normal((20, 3, 4, 50))).float()
    tables = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (3, 256)).astype(np.uint8))
    planes, _ = Sums(outputs).greatest(tables)
    np.testing.assert_array_equal(planes.numpy(), tables.numpy()[:, outputs.numpy().argmax(axis=0)])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_told(value: float, how: str) -> None:
    # Given one output of one voxel that is no number to reckon with
    outputs = torch.full((3, 2, 2, 40), -1.0)
    outputs[1, 1, 1, 17] = value
    labels, finite = labels_of(Sums(outputs))
    # Then that is told where it is the greatest of the voxel, and the others are as they are
    lost = value != float("-inf")
    assert finite is not lost
    assert labels[1, 1, 17] == (1 if lost else 0)
    assert labels.sum() == labels[1, 1, 17]
    # And where all are infinitely small
    assert labels_of(Sums(torch.full((3, 1, 1, 20), float("-inf"))))[1] is False


def test_a_voxel_of_nan_stays_one_whatever_comes_after(how: str) -> None:
    outputs = torch.tensor([[float("nan")] * 9, [1.0] * 9, [float("inf")] * 9]).view(3, 1, 1, 9)
    labels, finite = labels_of(Sums(outputs))
    assert not finite
    assert not labels.any()


# --- What is added up ----------------------------------------------------------------------------------------

BOXES = [
    (1, 1, 1),
    (3, 5, 7),
    (2, 70, 3),  # more rows than are taken at once
    (2, 3, 5000),  # rows that are taken in parts
    (40, 9, 33),
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("with_weights", [True, False])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("shape", BOXES)
@pytest.mark.usefixtures("how")
def test_compiled_sums_are_those_of_torch(
    shape: tuple[int, int, int], threads: int, with_weights: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is compiled, this compares PyTorch with plain operations of PyTorch."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    # Given scores and weights that are parts of larger ones, and what waits: all along one axis, a part of it, next to
    # nothing
    torch.manual_seed(sum(shape))
    outputs, channels = 4, 4 + with_weights
    scores = torch.randn(outputs, *(length + 3 for length in shape)).to(dtype)[:, 1:-2, 2:-1, 3:]
    weights = torch.rand(*(length + 2 for length in shape))[2:, 1:-1, :-2]
    depth, height, width = shape
    waiting = [
        torch.randn(channels, depth, -(-height // 2), width).half(),
        torch.randn(channels, -(-depth // 3), height, width + 4).half()[..., 2:-2],
        torch.randn(channels, 1, 1, -(-width // 2)).half(),
    ]
    expected = torch.empty(channels, *shape)
    expected[:outputs] = scores.float() * weights
    expected[outputs:] = weights
    for more in waiting:
        expected[:, : more.shape[1], : more.shape[2], : more.shape[3]] += more.float()
    # When they are worked out, in either precision, as numbers or as the greatest
    sums = Sums(scores, weights, waiting, with_weights=with_weights)
    single, half = torch.full((channels, depth + 1, height, width + 2), 7.0), torch.empty(expected.shape).half()
    sums.write(single[:, 1:, :, 1:-1])
    sums.write(half)
    labels, finite = labels_of(sums)
    # Then they are equal, and nothing beside them was written to
    torch.testing.assert_close(single[:, 1:, :, 1:-1], expected, rtol=0, atol=0)
    torch.testing.assert_close(half, expected.half(), rtol=0, atol=0)
    torch.testing.assert_close(sums.values(), expected, rtol=0, atol=0)
    for beside in (single[:, 0], single[..., 0], single[..., -1]):
        assert bool((beside == 7).all())
    np.testing.assert_array_equal(labels.numpy(), expected[:outputs].numpy().argmax(axis=0))
    assert finite


def test_a_part_has_what_waits_in_it(how: str) -> None:
    torch.manual_seed(1)
    waiting = [torch.randn(2, 3, 8, 9).half(), torch.randn(2, 8, 8, 2).half()]
    sums = Sums(torch.randn(2, 8, 8, 9), torch.rand(8, 8, 9), waiting)
    whole = sums.values()
    for axis in range(3):
        for first, stop in [(0, 2), (2, 3), (2, 8), (5, 5), (0, 8)]:
            part = sums.part(axis, first, stop)
            torch.testing.assert_close(part.values(), whole.narrow(1 + axis, first, stop - first), rtol=0, atol=0)
            assert labels_of(part)[0].shape == part.shape[1:]


def test_layouts_that_compiled_code_cannot_take_are_taken(how: str) -> None:
    # Given weights, sums that wait, more of them than there are axes, and room, none of them with voxels side by side
    torch.manual_seed(2)
    scores, weights = torch.randn(3, 4, 5, 6), torch.rand(4, 6, 5).transpose(1, 2)
    waiting = [torch.randn(3, 4, 6, 5).transpose(2, 3).half(), *torch.randn(3, 3, 4, 5, 6).half()]
    room = torch.empty(3, 4, 6, 5).transpose(2, 3)
    for some in ([], waiting[:1], waiting[1:], waiting):
        for its_weights in (weights, weights.contiguous()):
            # When they are worked out, then they are what they are
            Sums(scores, its_weights, some).write(room)
            expected = scores * its_weights
            for more in some:
                expected += more
            torch.testing.assert_close(room, expected, rtol=0, atol=0)
    tables = torch.arange(6, dtype=torch.uint8).view(3, 2).T
    planes, _ = Sums(scores).greatest(tables)
    np.testing.assert_array_equal(planes.numpy(), tables.numpy()[:, scores.numpy().argmax(axis=0)])


SCORES, WEIGHTS = torch.zeros(2, 3, 4, 5), torch.ones(3, 4, 5)


@pytest.mark.parametrize(
    "misfit",
    [
        lambda: Sums(SCORES, torch.ones(3, 4, 6)),
        lambda: Sums(SCORES, WEIGHTS, [torch.zeros(2, 3, 4, 6).half()]),
        lambda: Sums(SCORES, WEIGHTS, [torch.zeros(1, 3, 4, 5).half()]),
        lambda: Sums(SCORES, WEIGHTS, [torch.zeros(2, 3, 4, 5).half()], with_weights=True),
        lambda: Sums(SCORES, with_weights=True),
        lambda: Sums(SCORES, waiting=[torch.zeros(2, 3, 4, 5).half()]),
        lambda: Sums(SCORES, WEIGHTS).write(torch.empty(2, 3, 4, 4)),
        lambda: Sums(SCORES, WEIGHTS).greatest(torch.zeros(1, 1, dtype=torch.uint8)),
        lambda: Sums(SCORES, WEIGHTS).greatest(torch.zeros(1, 2, dtype=torch.int64)),
    ],
)
def test_what_does_not_fit_is_not_read_beyond_its_end(misfit: Callable[[], object]) -> None:
    if not compiled.is_available():
        pytest.skip("the engine's sums are not compiled for this processor")
    with pytest.raises(ValueError, match=r"(of shape|nothing is weighed)"):
        misfit()


@pytest.mark.parametrize(("value", "kept_finite"), [(65519.0, True), (-65520.0, False), (1e30, False)])
def test_numbers_too_large_for_half_become_infinite_and_that_is_told(value: float, kept_finite: bool, how: str) -> None:
    scores = torch.zeros(1, 1, 3, 20)
    scores[0, 0, 2, 19] = value
    kept = torch.empty(1, 1, 3, 20).half()
    assert Sums(scores, torch.ones(1, 3, 20)).write(kept) is kept_finite
    assert bool(torch.isfinite(kept).all()) is kept_finite
    # What is infinite already is not lost, and single precision loses nothing
    assert Sums(torch.full((1, 1, 3, 20), float("-inf")), torch.ones(1, 3, 20)).write(kept)
    assert Sums(scores, torch.ones(1, 3, 20)).write(torch.empty(1, 1, 3, 20))


def test_sums_that_wait_in_single_precision_lose_no_digit(how: str) -> None:
    waiting = torch.full((1, 1, 1, 20), 1 / 3)
    sums = Sums(torch.zeros(1, 1, 1, 20), torch.ones(1, 1, 20), [waiting])
    assert bool((sums.values() == waiting).all())
