"""What a host process tells of its GPU memory, and what the worker believes."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from services.worker.device_memory import believable_bytes, peak_device_bytes
from services.worker.hosts import ModelHosts
from tests.worker.models import SCRATCH_LIMIT_BYTES, faulty_spec, run


def with_torch(monkeypatch: pytest.MonkeyPatch, **cuda: object) -> None:
    torch = ModuleType("torch")
    torch.cuda = SimpleNamespace(**cuda)  # type: ignore[attr-defined] # a stand-in: tests have no GPU
    monkeypatch.setitem(sys.modules, "torch", torch)


def test_the_peaks_of_all_gpus_count(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = [5, 7]
    with_torch(monkeypatch, is_initialized=lambda: True, device_count=lambda: 2, max_memory_reserved=lambda n: peaks[n])
    assert peak_device_bytes() == 12


def test_a_process_that_uses_no_gpu_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with_torch(monkeypatch, is_initialized=lambda: False)
    assert peak_device_bytes() == 0
    monkeypatch.delitem(sys.modules, "torch")
    assert peak_device_bytes() == 0
    with_torch(monkeypatch)  # one that a model has broken
    assert peak_device_bytes() == 0


def test_a_torch_that_is_loaded_and_not_used_takes_nothing() -> None:
    import torch

    assert sys.modules["torch"] is torch
    assert peak_device_bytes() == 0


def test_the_host_tells_and_the_pool_knows(tmp_path: Path) -> None:
    prologue = "\nimport sys\nsys.modules['__main__'].peak_device_bytes = lambda: 7 * 2**30\n"
    with ModelHosts(1, 120, SCRATCH_LIMIT_BYTES, tmp_path / "scratch") as pool:
        run(pool.acquire(faulty_spec(tmp_path / "model", prologue)))
        [use] = pool.warm().values()
    assert use.device_bytes == 7 * 2**30
    assert use.host_bytes > 0


@pytest.mark.parametrize("told", [-1, 2**70, True, "much", 0.5, None])
def test_what_cannot_be_true_is_not_believed(told: object) -> None:
    assert believable_bytes(told) == 0
