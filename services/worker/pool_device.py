"""See to it that a worker computes on what its pool promises."""

import os
import subprocess
import sys

from services.core.pools import PoolDevice

LOOK_LIMIT_SECONDS = 120.0
"""PyTorch's import and the driver's start, from a slow disk."""
_LOOK = "import torch; print(torch.__version__, torch.cuda.is_available())"


def keep_to_device(device: PoolDevice) -> None:
    """Hide GPUs from the model hosts of a `cpu` pool; require one of a `cuda` pool.

    Raises:
        SystemExit: a GPU is promised and PyTorch sees none. Models would run on the CPU unnoticed, many times slower.
    """
    if device is PoolDevice.CPU:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif device is PoolDevice.CUDA:
        _require_gpu()


def _require_gpu() -> None:
    # In a process of its own: what holds the driver's context keeps some hundred MB of the GPU.
    try:
        found = subprocess.run(
            [sys.executable, "-c", _LOOK], capture_output=True, text=True, timeout=LOOK_LIMIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        reason = f"PyTorch did not answer within {LOOK_LIMIT_SECONDS:g} s"
    else:
        version, _, sees_gpu = found.stdout.strip().rpartition(" ")
        if found.returncode == 0 and sees_gpu == "True":
            return
        last_line = (found.stderr.strip().splitlines() or [""])[-1]
        reason = f"PyTorch {version} sees none" if version else f"PyTorch cannot be imported ({last_line})"
    raise SystemExit(
        f"SEGINT_POOL_DEVICE is cuda, but this worker has no GPU that it can use: {reason}. Give it a GPU and an image "
        "built for CUDA, or set SEGINT_POOL_DEVICE to cpu."
    )
