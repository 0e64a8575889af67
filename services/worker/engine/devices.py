"""On which device a model runs, and with which precision."""

import re
from typing import TYPE_CHECKING

import torch

from services.core.errors import ModelFailed
from services.core.model_choices import Call, Precision

if TYPE_CHECKING:
    from services.core.model_options import ModelOptions

DTYPES = {Precision.FLOAT32: torch.float32, Precision.FLOAT16: torch.float16, Precision.BFLOAT16: torch.bfloat16}

OUT_OF_MEMORY = re.compile(r"CUDA (error: )?out of memory|DefaultCPUAllocator: .*memory|ALLOC(ATION)?_FAILED")
"""What torch's allocators, and the CUDA libraries below it, say."""


def device_of(options: "ModelOptions") -> torch.device:
    """The device that the options ask for; `auto` is a GPU where there is one.

    Raises ModelFailed when one is asked for that this worker does not have: nothing falls back.
    """
    wanted = options.inference.device
    if wanted == "auto":
        # The array convention hands the model an ndarray: where its own tensors are, only its module knows.
        wanted = "cuda" if options.call is not Call.ARRAY and torch.cuda.is_available() else "cpu"
    device = torch.device(wanted)
    try:
        if device.type != "cpu":
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        available = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise ModelFailed(
            f"The device {wanted!r} is not available to this worker, which has {', '.join(available)}; set the "
            "option inference.device to one of these, or give the worker the device."
        ) from error
    return device


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch means by it that a device, or the host, has no more memory: memory of the host, and TorchScript,
    have no type of their own for it."""
    return isinstance(error, torch.OutOfMemoryError) or OUT_OF_MEMORY.search(str(error)) is not None


def precision_of(options: "ModelOptions", device: torch.device) -> torch.dtype:
    """What the network computes in."""
    precision = options.inference.precision
    if precision is Precision.AUTO:
        return torch.float16 if device.type == "cuda" else torch.float32
    return DTYPES[precision]
