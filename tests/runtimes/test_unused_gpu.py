"""A model that gets the CPU where there is a GPU, and was not told to, says why; GPUs here are pretended."""

from pathlib import Path
from typing import Any

import pytest
import torch

from services.core.model_spec import ModelSpec
from services.worker.runtimes import unused_gpu
from tests.runtimes import artifacts
from tests.runtimes.running import Heard, loaded, segmented
from tests.runtimes.test_contract import KINDS, Make, bright_middle

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")

ON_GPUS = {name: kind for name, kind in KINDS.items() if not name.startswith(("phantom", "sklearn"))}


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a GPU that this PyTorch, which was built for the CPU or has no driver, cannot use."""
    devices = tmp_path / "dev"
    devices.mkdir()
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm"):
        (devices / name).touch()
    monkeypatch.setattr(unused_gpu, "DEVICES", devices)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return devices / "nvidia0"


def notes(spec: ModelSpec) -> list[str]:
    """Of a run of its model."""
    heard = Heard()
    segmented(spec, bright_middle(), model=loaded(spec), heard=heard)
    return heard.notes


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("kind", ON_GPUS.values(), ids=ON_GPUS)
def test_every_runtime_says_that_pytorch_cannot_use_the_gpu(kind: Make, tmp_path: Path) -> None:
    (note,) = notes(kind(tmp_path, 1))
    assert note.startswith(f"The model runs on the CPU beside the worker's GPU, because PyTorch {torch.__version__} ")


@pytest.mark.usefixtures("gpu")
def test_what_never_uses_a_gpu_says_nothing(tmp_path: Path) -> None:
    assert notes(KINDS["sklearn skops"](tmp_path, 1)) == []


def of(folder: Path, options: dict[str, Any]) -> ModelSpec:
    return artifacts.spec_of(artifacts.torchscript(folder).artifact, options=options)


@pytest.mark.usefixtures("gpu")
def test_the_cpu_that_was_asked_for_needs_no_word(tmp_path: Path) -> None:
    assert notes(of(tmp_path, {"inference": {"device": "cpu"}})) == []


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("visible", ["", "-1", "none", "NoDevFiles"])
def test_neither_does_a_gpu_that_is_hidden_from_a_pool_of_cpus(
    visible: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert notes(of(tmp_path, {})) == []


def test_nor_a_driver_without_a_gpu(gpu: Path, tmp_path: Path) -> None:
    gpu.unlink()
    assert notes(of(tmp_path, {})) == []


@pytest.mark.parametrize(("kind", "said"), [("pytorch torchscript", True), ("pytorch whole", False)])
def test_a_network_that_call_array_keeps_on_the_cpu_says_so(
    kind: str, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module of Python gets an ndarray, and may know itself where its tensors belong; TorchScript gets a tensor."""
    spec = KINDS[kind](tmp_path, 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [note.partition(", as models with call: array")[0] for note in notes(spec)] == (
        ["The model runs on the CPU beside the worker's GPU"] if said else []
    )
