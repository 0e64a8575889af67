"""Sliding windows whose scores are given out early are MONAI's, and hold little."""

import gc
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor

from services.core.errors import ModelFailed
from services.core.model_choices import Blending
from services.core.volumes import Geometry, Shape, Volume
from services.worker.engine import compiled, model, windows
from services.worker.engine.preprocessing import Start
from services.worker.engine.sums import Sums
from services.worker.engine.windows import blended
from tests.engine.functions import drawn
from tests.runtimes.running import Heard

CPU = torch.device("cpu")
HALF_PRECISION = 4 * 2.0**-11
"""Of numbers around one, of which some are added up."""


@pytest.mark.parametrize("blending", Blending)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("slab_floats", "carried", "pytorch_only"),
    [
        (1, torch.float32, True),  # one layer at a time
        (4 * 3 * 9 * 10, torch.float32, True),  # a few
        (windows.SLAB_FLOATS, torch.float16, True),  # all of a patch
        (windows.SLAB_FLOATS, torch.float16, False),
    ],
)
@pytest.mark.parametrize(
    ("shape", "patch", "overlap"),
    [
        ((20, 33, 27), (8, 9, 10), 0.25),
        ((20, 33, 27), (8, 9, 10), 0.0),
        ((12, 19, 17), (8, 9, 10), 0.6),
        ((9, 12, 10), (8, 9, 10), 0.9),
        ((5, 33, 27), (8, 9, 40), 0.5),
        ((9, 9, 9), (9, 9, 9), 0.25),
        ((1, 30, 30), (4, 16, 16), 0.25),
        ((7, 2, 3), (1, 1, 1), 0.25),
    ],
)
def test_scores_are_those_of_monai(
    shape: Shape,
    patch: Shape,
    overlap: float,
    blending: Blending,
    batch: int,
    slab_floats: int,
    carried: torch.dtype,
    pytorch_only: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(windows, "SLAB_FLOATS", slab_floats)
    monkeypatch.setattr(compiled, "ENOUGH", 1)  # several threads
    if pytorch_only:
        monkeypatch.setattr(compiled, "is_available", lambda: False)
    own = Sums.write

    def watched(sums: Sums, to: Tensor) -> bool:
        # What one thread writes, another may still have to read.
        assert to.untyped_storage().data_ptr() not in {more.untyped_storage().data_ptr() for more in sums.waiting}
        return own(sums, to)

    monkeypatch.setattr(Sums, "write", watched)
    # Given a network whose answer depends on where in a patch a voxel lies
    torch.manual_seed(7)
    network = torch.nn.Conv3d(1, 3, 5, padding=2)
    volume = torch.randn(1, 1, *shape)
    margin = 50
    padded = torch.nn.functional.pad(volume, [margin] * 6)[0]

    def score(starts: Sequence[Start]) -> Tensor:
        cut = [
            padded[(slice(None), *(slice(s + margin, s + margin + p) for s, p in zip(start, patch, strict=True)))]
            for start in starts
        ]
        return network(torch.stack(cut))  # type: ignore[no-any-return] # a module's call is untyped

    with torch.inference_mode():
        expected = sliding_window_inference(volume, patch, batch, network, overlap=overlap, mode=blending.value)
        # When its scores are put together box by box
        found = torch.full((3, *shape), float("nan"))
        for box, sums in blended(shape, patch, overlap, blending, batch, score, CPU, carried, lambda _: True):
            where = (slice(None), *box)
            assert torch.isnan(found[where]).all()  # each voxel once
            *scores, weights = sums.values()
            found[where] = torch.stack(scores) / weights
    # Then they are MONAI's
    assert isinstance(expected, Tensor)
    tolerance = 1e-5 if carried == torch.float32 else HALF_PRECISION
    torch.testing.assert_close(found, expected[0], atol=tolerance, rtol=tolerance)


def test_what_is_held_does_not_grow_with_the_volume() -> None:
    # Given scores of many outputs on a long volume
    outputs, patch, shape = 16, (8, 16, 16), (512, 32, 32)

    def score(starts: Sequence[Start]) -> Tensor:
        return torch.zeros((len(starts), outputs, *patch))

    held = []
    boxes = blended(shape, patch, 0.25, Blending.GAUSSIAN, 1, score, CPU, torch.float16, lambda _: False)
    for _ in boxes:
        local = boxes.gi_frame.f_locals  # type: ignore[attr-defined] # a generator's own names
        carried = [kept for carry in local["carries"] for kept in carry._kept.values()]
        held.append(sum(tensor.numel() for tensor in carried))
    # Then what waits for later patches is a few planes of it
    assert 0 < max(held) < outputs * np.prod(shape) / 20


@pytest.mark.parametrize("pytorch_only", [True, False])
@pytest.mark.parametrize("decision", ["argmax", "threshold"])
def test_scores_of_a_patch_are_let_go_before_the_next(
    decision: str, pytorch_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are as large as half of a volume."""
    if pytorch_only:
        monkeypatch.setattr(compiled, "is_available", lambda: False)
    answers: list[weakref.ref[Any]] = []

    def network(batch: Tensor) -> Tensor:
        gc.collect()
        assert [answer for answer in answers if answer() is not None] == []
        memory = np.ones((1, 2, *batch.shape[2:]), np.float32)
        answers.append(weakref.ref(memory))
        return torch.from_numpy(memory)

    options = {
        "call": "sliding_window",
        "inference": {"patch": [8, 8, 8], "overlap": 0.5},
        "postprocessing": {"decision": decision},
        "mapping": {"1": 1},
        "ignored_outputs": [0],
    }
    drawn(network, [Volume(np.zeros((16, 16, 16), np.int16), channel_id="CT")], options)
    assert len(answers) == 27


@pytest.mark.parametrize(("first", "other"), [(2, 3), (2, 40), (3, 1)])
def test_patches_with_other_numbers_of_outputs_are_refused(first: int, other: int) -> None:
    asked = []

    def network(batch: Tensor) -> Tensor:
        asked.append(batch)
        return torch.ones(1, first if len(asked) == 1 else other, *batch.shape[2:])

    options = {
        "call": "sliding_window",
        "inference": {"patch": [8, 8, 8]},
        "postprocessing": {"decision": "argmax"},
        "mapping": {"1": 0},
        "ignored_outputs": "rest",
    }
    with pytest.raises(ModelFailed, match=f"returned {first} outputs for one patch and {other} for another"):
        drawn(network, [Volume(np.zeros((16, 8, 8), np.int16), channel_id="CT")], options)


def test_an_output_that_half_precision_loses_below_all_others_is_asked_for_again() -> None:
    """Very small where one patch looks, very large where the next does: their sum decides, and is not infinite."""

    def network(batch: Tensor) -> Tensor:
        score = torch.where(batch[:, :, :1].amax(dim=(2, 3, 4), keepdim=True) < 4, -7e4, 2e5)
        return torch.cat([torch.full_like(batch, 10.0), score.expand(batch.shape)], dim=1)

    voxels = np.broadcast_to(np.arange(16, dtype=np.int16)[:, None, None], (16, 8, 8)).copy()
    options = {
        "call": "sliding_window",
        "inference": {"patch": [8, 8, 8], "overlap": 0.5, "blending": "constant"},
        "postprocessing": {"decision": "argmax"},
        "mapping": {"1": 1},
        "ignored_outputs": [0],
    }
    heard = Heard()
    (mask,) = drawn(network, [Volume(voxels, channel_id="CT")], options, heard=heard)
    np.testing.assert_array_equal(mask, voxels >= 4)
    assert len(heard.notes) == 1


def test_infinite_scores_that_a_model_means_are_no_reason_to_ask_again() -> None:
    def network(batch: Tensor) -> Tensor:
        return torch.cat([batch, torch.where(batch > 7, float("inf"), float("-inf"))], dim=1)

    voxels = np.broadcast_to(np.arange(16, dtype=np.int16)[:, None, None], (16, 8, 8)).copy()
    options = {
        "call": "sliding_window",
        "inference": {"patch": [8, 8, 8], "overlap": 0.5},
        "postprocessing": {"decision": "argmax"},
        "mapping": {"1": 1},
        "ignored_outputs": [0],
    }
    heard = Heard()
    (mask,) = drawn(network, [Volume(voxels, channel_id="CT")], options, heard=heard)
    np.testing.assert_array_equal(mask, voxels > 7)
    assert heard.notes == []


@pytest.mark.parametrize("patch", [[8, 8, 8], [40, 8, 12]])
@pytest.mark.parametrize("flips", [[], ["depth"], ["height", "width"], ["depth", "height", "width"]])
def test_flips_are_averaged_and_turned_back(flips: list[str], patch: list[int]) -> None:
    """A network that knows left from right, averaged with its own mirror image."""
    rng = np.random.default_rng(3)
    volume = Volume(rng.integers(-50, 50, (20, 16, 24)).astype(np.int16), channel_id="CT")

    def shifted(batch: Tensor) -> Tensor:
        return batch.roll(1, dims=-1) + batch.roll(1, dims=-2) + batch.roll(1, dims=-3)

    seen = []

    def network(batch: Tensor) -> Tensor:
        seen.append(batch.clone())
        return (batch > 0).float()

    options = {
        "call": "sliding_window",
        "inference": {"patch": patch, "flips": flips, "overlap": 0.0, "blending": "constant"},
    }
    (mask,) = drawn(network, [volume], options)
    np.testing.assert_array_equal(mask, volume.voxels > 0)
    # every combination of the axes was asked
    assert len(seen) % 2 ** len(flips) == 0
    if flips:
        torch.testing.assert_close(seen[1], seen[0].flip({"depth": -3, "height": -2, "width": -1}[flips[0]]))
    assert shifted(seen[0]).shape == seen[0].shape


def test_progress_counts_patches() -> None:
    heard = Heard()
    volume = Volume(np.zeros((16, 8, 8), np.int16), channel_id="CT")
    options = {"call": "sliding_window", "inference": {"patch": [8, 8, 8], "overlap": 0.0}}
    drawn(lambda batch: batch, [volume], options, heard=heard)
    assert heard.fractions == [0.5, 1.0, 1.0]


def test_patches_of_labels_are_refused() -> None:
    volume = Volume(np.zeros((16, 8, 8), np.int16), channel_id="CT")
    options = {"call": "sliding_window", "inference": {"patch": [8, 8, 8]}}
    with pytest.raises(ModelFailed, match="patches of labels cannot be blended"):
        drawn(lambda batch: batch.long(), [volume], options)


@pytest.mark.parametrize("decision", ["argmax", "threshold"])
@pytest.mark.parametrize("largest", [50.0, 1e6])
def test_scores_that_half_precision_cannot_hold_are_asked_for_again(largest: float, decision: str) -> None:
    # Given two structures, whose scores differ a little and may be beyond float16
    volume = Volume(np.arange(-1024, 1024, dtype=np.int16).reshape(16, 8, 16), channel_id="CT")

    def network(batch: Tensor) -> Tensor:
        first = largest * (1 + (batch > 0) * 0.01)
        return torch.cat([torch.full_like(first, largest * 1.005), first], dim=1)

    options = {
        "call": "sliding_window",
        "inference": {"patch": [8, 8, 8], "overlap": 0.5},
        "postprocessing": {"decision": decision, "threshold": largest * 1.003},
        "mapping": {"1": 1},
        "ignored_outputs": [0],
    }
    heard = Heard()
    # When they are blended
    (mask,) = drawn(network, [volume], options, heard=heard)
    # Then the mask is right, and the time line tells of it
    np.testing.assert_array_equal(mask, volume.voxels > 0)
    assert heard.notes == (
        []
        if largest < 1e4
        else ["The model's scores are too large for half precision; it runs again in single precision."]
    )


def test_nan_is_refused_whatever_it_waits_in() -> None:
    volume = Volume(np.zeros((16, 8, 8), np.int16), channel_id="CT")
    options = {"call": "sliding_window", "inference": {"patch": [8, 8, 8], "overlap": 0.5}}
    with pytest.raises(ModelFailed, match="NaN"):
        drawn(lambda batch: batch * float("nan"), [volume], options)


# --- Memory of the device ------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["sliding_window", "tensor"])
def test_a_device_out_of_memory_gets_a_second_chance_that_is_noted(call: str) -> None:
    # Given a model that finds no room for more than one patch, the first time
    volume = Volume(np.arange(-1024, 1024, dtype=np.int16).reshape(16, 8, 16), channel_id="CT")
    asked = []

    def network(batch: Tensor) -> Tensor:
        asked.append(len(batch))
        if asked in ([2, 2], [1]):
            raise torch.OutOfMemoryError
        return batch

    options = {"call": call, "postprocessing": {"decision": "threshold", "threshold": 0.0}}
    if call == "sliding_window":
        options["inference"] = {"patch": [4, 8, 16], "overlap": 0.0, "batch": 2}
    heard = Heard()
    # When it runs, Then its second run is done patch by patch
    (mask,) = drawn(network, [volume], options, heard=heard)
    np.testing.assert_array_equal(mask, volume.voxels > 0)
    assert asked == ([2, 2, 1, 1, 1, 1] if call == "sliding_window" else [1, 1])
    assert [note.partition(";")[0] for note in heard.notes] == ["The device ran out of memory"]


ARGUMENT_OF_DEVICE = {"model_input": 2, "bring_back": 5}


@pytest.mark.parametrize("step", ARGUMENT_OF_DEVICE)
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("of 8 GiB"), RuntimeError("CUDA error: out of memory")])
def test_what_lies_around_the_model_finds_room_on_the_host(
    step: str, error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a device without room for the volumes, or for masks on their way to the volumes' grid
    volume = Volume(np.zeros((8, 8, 16), np.int16), Geometry(spacing=(1.0, 1.0, 1.0)), channel_id="CT")
    volume.voxels[2:6, 2:6, 4:12] = 100
    own = getattr(model, step)
    devices = []

    def without_room(*arguments: Any) -> Any:
        devices.append(arguments[ARGUMENT_OF_DEVICE[step]])
        if len(devices) == 1:
            raise error
        return own(*arguments)

    options = {
        "call": "sliding_window",
        "preprocessing": {"spacing": [2.0, 2.0, 2.0]},
        "inference": {"patch": [4, 4, 8]},
        "postprocessing": {"decision": "threshold", "threshold": 50.0},
    }
    (expected,) = drawn(lambda batch: batch, [volume], options)
    monkeypatch.setattr(model, step, without_room)
    heard = Heard()
    # When it runs
    (mask,) = drawn(lambda batch: batch, [volume], options, heard=heard)
    # Then that is done on the host, noted once, and the mask is what it would be
    assert expected.any()
    np.testing.assert_array_equal(mask, expected)
    assert devices == [CPU, CPU]
    (note,) = heard.notes
    assert note.startswith("The device ran out of memory;")
    assert note.endswith("on the host.")


def test_another_fault_of_the_device_is_not_taken_for_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*arguments: Any) -> Any:
        raise RuntimeError("CUDA error: device-side assert triggered")

    for step in ARGUMENT_OF_DEVICE:
        with monkeypatch.context() as patched:
            patched.setattr(model, step, lost)
            with pytest.raises(RuntimeError, match="device-side assert"):
                drawn(
                    lambda batch: batch,
                    [Volume(np.zeros((4, 4, 4), np.int16), Geometry(), channel_id="CT")],
                    {"call": "tensor", "preprocessing": {"spacing": [2.0, 2.0, 2.0]}},
                )


def test_a_device_that_is_too_small_is_said_to_be() -> None:
    def network(batch: Tensor) -> Tensor:
        raise torch.OutOfMemoryError

    volume = Volume(np.zeros((4, 4, 4), np.int16), channel_id="CT")
    with pytest.raises(ModelFailed, match="needs more memory than its device has"):
        drawn(network, [volume], {"call": "tensor"})
