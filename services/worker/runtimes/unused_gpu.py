"""A GPU that `inference.device: auto` does not get is not passed over in silence."""

import os
import re
from pathlib import Path

import torch

from services.core.model_options import ModelOptions
from services.worker.runtimes.base import LoadedModel, NotedModel

DEVICES = Path("/dev")
"""Where NVIDIA's driver has a file for each GPU, in a container for each that it was given."""

VISIBLE = re.compile(r"\s*(\d|GPU-|MIG-)")
"""How CUDA_VISIBLE_DEVICES begins where it leaves any: whatever else comes first, such as -1 or none, hides all."""


def with_unused_gpu_noted(
    model: LoadedModel, options: ModelOptions, device: torch.device, *, places_itself: bool = False
) -> LoadedModel:
    """The model, whose runs say why they have the CPU where there is a GPU, too.

    Args:
        device: that the model was given.
        places_itself: its own code may put its tensors onto another.
    """
    note = unused_gpu(options, device, places_itself=places_itself)
    return model if note is None else NotedModel(model, note)


def unused_gpu(options: ModelOptions, device: torch.device, *, places_itself: bool = False) -> str | None:
    """Why a model for which no device was named runs on the CPU beside a GPU; None where it does not."""
    if options.inference.device != "auto" or device.type != "cpu":
        return None
    if torch.cuda.is_available():
        # Only the array convention leaves it out.
        return (
            None
            if places_itself
            else "The model runs on the CPU beside the worker's GPU, as models with call: array do unless "
            "inference.device names a device."
        )
    if not VISIBLE.match(os.environ.get("CUDA_VISIBLE_DEVICES", "0")) or not any(DEVICES.glob("nvidia[0-9]*")):
        return None
    return (
        f"The model runs on the CPU beside the worker's GPU, because PyTorch {torch.__version__} cannot use it; "
        "install PyTorch for its CUDA and a driver that is new enough, or set the option inference.device to cpu."
    )
