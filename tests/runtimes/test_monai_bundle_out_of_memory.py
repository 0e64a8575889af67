"""A bundle that runs out of its device's memory runs again patch by patch, or says what to do."""

import gc
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.inferers.inferer import SliceInferer

from services.core.errors import ModelFailed
from services.core.model_spec import ModelSpec
from services.worker.runtimes.monai_bundle_inferer import counted
from tests.runtimes.artifacts_monai_bundle import (
    ABOVE_HALF,
    CHANNEL_FIRST,
    INVERT,
    LOAD,
    SAVE,
    SCALE,
    SIGMOID,
    Json,
    bundle_spec,
    configuration,
    packed,
    write_bundle,
)
from tests.runtimes.running import Heard, loaded, segmented

OWN_CODE = '''
import weakref

import torch
from monai.inferers import Inferer, SlidingWindowInferer

patches = []
"""How many the network was called with, call by call."""
left = []
"""What was there when the device was full."""


class Greedy(torch.nn.Module):
    """Has room for `room` patches beside one another."""

    def __init__(self, room):
        super().__init__()
        self.room = room

    def forward(self, x):
        patches.append(len(x))
        if len(x) > self.room:
            features = x + 1
            left.append(weakref.ref(features))
            raise torch.OutOfMemoryError("as a GPU does that is too small")
        assert not any(it() is not None for it in left), "something refers to the first run"
        return x


class Wrapper(Inferer):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def __call__(self, inputs, network, *args, **kwargs):
        return self.inner(inputs, network)


class CrampedScores:
    """Has no room for scores that do not wait on the host, and notices where they wait."""

    def __init__(self, inner):
        self.inner = inner

    def __call__(self, data):
        if str(self.inner.device) != "cpu":
            scores = data["pred"] + 1
            left.append(weakref.ref(scores))
            raise torch.OutOfMemoryError("as a GPU does that is full of scores")
        return data
'''
WINDOWS: Json = {"_target_": "SlidingWindowInferer", "roi_size": [4, 4, 4], "sw_batch_size": 4, "overlap": 0.5}
AFTERWARDS = (SIGMOID, INVERT, ABOVE_HALF, SAVE)
AGAIN = "The device ran out of memory; the model runs again patch by patch, with its scores on the host."
VOXELS = np.arange(-511, 513, 2, dtype=np.int16).reshape(8, 8, 8)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The temporary directory, as a host has one of its own."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    gc.collect()  # a bundle takes its modules with it


def greedy(folder: Path, room: int, inferer: Json, *steps: Json) -> ModelSpec:
    """A bundle with room for so many patches, which draws whatever is above zero."""
    network = {"_target_": "own_code.greedy.Greedy", "room": room}
    own = {"inferer": inferer, "checkpointloader": None, "initialize": None}
    entries = configuration(network, [LOAD, CHANNEL_FIRST, SCALE], [*steps, *AFTERWARDS], **own)
    root = write_bundle(folder, entries, None)
    (root / "own_code").mkdir()
    (root / "own_code" / "__init__.py").touch()
    (root / "own_code" / "greedy.py").write_text(OWN_CODE, encoding="utf-8")
    return bundle_spec(packed(root))


def calls() -> list[int]:
    """With how many patches the network was called; forgotten by that."""
    import own_code.greedy  # type: ignore[import-not-found]  # of the bundle that is loaded

    counts = list(own_code.greedy.patches)
    own_code.greedy.patches.clear()
    return counts


WRAPPED: Json = {"_target_": "own_code.greedy.Wrapper", "inner": WINDOWS}
ADAPTIVE: Json = WINDOWS | {"_target_": "SlidingWindowInfererAdapt"}
BUFFERED: Json = WINDOWS | {"buffer_steps": 2}


@pytest.mark.parametrize(
    "inferer", [WINDOWS, WRAPPED, ADAPTIVE, BUFFERED], ids=["itself", "wrapped", "adaptive", "buffered"]
)
def test_a_second_run_is_done_patch_by_patch(inferer: Json, tmp_path: Path) -> None:
    # Given a warm bundle that calls its network with four patches at a time, and has room for one
    spec, heard = greedy(tmp_path, 1, inferer), Heard()
    model = loaded(spec)
    # When it segments
    (mask,) = segmented(spec, VOXELS, model=model, heard=heard)
    # Then it does so with one after the other, when nothing of the first run is there any more
    first, *others = calls()
    assert first > 1 and set(others) == {1}
    np.testing.assert_array_equal(mask, VOXELS > 0)
    assert heard.notes == [AGAIN]
    # And the next job begins as the bundle says
    again = Heard()
    segmented(spec, VOXELS, model=model, heard=again)
    assert calls()[0] == first
    assert again.notes == [AGAIN]


def test_scores_wait_on_the_host(tmp_path: Path) -> None:
    # Given a bundle whose postprocessing has no room, as long as scores are on the device
    cramped = {"_target_": "own_code.greedy.CrampedScores", "inner": "@inferer"}
    spec, heard = greedy(tmp_path, 4, WINDOWS, cramped), Heard()
    # When it segments, then the second run has room
    (mask,) = segmented(spec, VOXELS, heard=heard)
    np.testing.assert_array_equal(mask, VOXELS > 0)
    assert heard.notes == [AGAIN]


def test_a_bundle_with_room_runs_once(tmp_path: Path) -> None:
    spec, heard = greedy(tmp_path, 4, WINDOWS), Heard()
    model = loaded(spec)
    segmented(spec, VOXELS, model=model, heard=heard)
    assert max(calls()) == 4
    assert heard.notes == []


SAY: dict[str, tuple[Json, str, int]] = {
    "no room for one patch": (WINDOWS, "even patch by patch .*; give its inferer a smaller roi_size", 2),
    "no windows": (
        {"_target_": "SimpleInferer"},
        "its inferer, SimpleInferer, cannot do with less; write its inference with a SlidingWindowInferer",
        1,
    ),
}


@pytest.mark.parametrize("case", SAY)
def test_a_bundle_without_room_says_what_to_do(case: str, tmp_path: Path) -> None:
    inferer, sentence, runs = SAY[case]
    spec = greedy(tmp_path, 0, inferer)
    model = loaded(spec)
    with pytest.raises(ModelFailed, match=sentence):
        segmented(spec, VOXELS, model=model)
    assert len(calls()) == runs


def test_an_inferer_of_slices_is_counted_as_one_call() -> None:
    reported: list[float] = []
    inferer, network, image = (
        SliceInferer(spatial_dim=2, roi_size=(8, 8)),
        torch.nn.Identity(),
        torch.zeros(1, 1, 8, 8, 4),
    )
    with counted(network, inferer, image, reported.append):
        inferer(image, network)
    assert reported[-1] == 1.0
