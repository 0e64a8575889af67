"""How much memory of the GPUs a host process takes, as far as the library that it has loaded says."""

import sys

MOST_BYTES = 2**50
"""No machine has more."""


def peak_device_bytes() -> int:
    """The most that PyTorch has reserved on all GPUs since the process started; 0 where it uses none.

    CUDA's own share, some hundred megabytes for each process, is not in it, nor is what another library takes.
    Imports nothing: a process that has not loaded torch does not use it.
    """
    torch = sys.modules.get("torch")
    try:
        if torch is None or not torch.cuda.is_initialized():
            return 0
        return sum(int(torch.cuda.max_memory_reserved(device)) for device in range(torch.cuda.device_count()))
    except Exception:  # a driver that fails here has said so to the model, whose answer stands
        return 0


def believable_bytes(told: object) -> int:
    """What a host has told of itself, 0 where that cannot be: a model may have it say anything."""
    return told if type(told) is int and 0 <= told <= MOST_BYTES else 0
