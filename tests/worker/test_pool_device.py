"""What a pool promises to compute on."""

import os
import subprocess
import sys

import pytest

from services.core.pools import PoolDevice
from services.worker.pool_device import keep_to_device


def test_a_cpu_pool_hides_the_gpus_from_its_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    keep_to_device(PoolDevice.AUTO)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    keep_to_device(PoolDevice.CPU)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_a_worker_of_a_cuda_pool_does_not_start_without_a_gpu() -> None:
    # Given a machine whose GPUs, if it has any, are out of sight
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "SEGINT_POOL_DEVICE": "cuda",
        "SEGINT_DATABASE_URL": "postgresql://nowhere/x",
        "SEGINT_REDIS_URL": "redis://nowhere/0",
        "SEGINT_VOLUME_DIR": "/nonexistent",
    }
    # When a worker is started
    ended = subprocess.run(
        [sys.executable, "-m", "services.worker"], env=environment, capture_output=True, text=True, check=False
    )
    # Then it says why not and what to do, in one line
    assert ended.returncode == 1
    assert ended.stderr.startswith("SEGINT_POOL_DEVICE is cuda, but this worker has no GPU that it can use: PyTorch 2")
    assert ended.stderr.endswith("or set SEGINT_POOL_DEVICE to cpu.\n")
    assert ended.stderr.count("\n") == 1
