"""What is known of a bundle's inferer: how often it calls the network, and how to have it take less memory.

Imports MONAI, so only a host process imports this.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from monai.inferers.inferer import SlidingWindowInferer
from torch import Tensor, nn

from services.worker.engine.windows import patch_starts


@contextmanager
def counted(network: nn.Module, inferer: Any, image: Tensor, report: Callable[[float], None]) -> Iterator[None]:
    """Report the share of the network's calls that is done, where it is known how many there will be, and they can be
    heard."""
    if isinstance(network, torch.jit.ScriptModule):
        yield
        return
    total = _calls(inferer, image)
    done = 0

    def called(*_: Any) -> None:
        nonlocal done
        done += 1
        report(min(1.0, done / total))

    handle = network.register_forward_hook(called)
    try:
        yield
    finally:
        handle.remove()


def sliding_windows(inferer: Any) -> list[SlidingWindowInferer]:
    """The inferer itself, where it is one, or those that it has as attributes."""
    candidates = [inferer, *getattr(inferer, "__dict__", {}).values()]
    return [candidate for candidate in candidates if isinstance(candidate, SlidingWindowInferer)]


@contextmanager
def patch_by_patch(inferers: Sequence[SlidingWindowInferer]) -> Iterator[None]:
    """Have them call the network with one patch at a time, and put its scores together on the host."""
    settings = [(vars(inferer), vars(inferer).copy()) for inferer in inferers]
    for inferer in inferers:
        inferer.sw_batch_size = 1
        inferer.device = torch.device("cpu")
        inferer.buffer_steps = None  # or scores would wait on the device after all
    try:
        yield
    finally:
        for own, before in settings:
            own.update(before)


def _calls(inferer: Any, image: Tensor) -> int:
    """How often an inferer calls the network, as far as can be told."""
    if not isinstance(inferer, SlidingWindowInferer) or not isinstance(inferer.overlap, float):
        return 1
    _, _, width, height, depth = image.shape
    shape = (width, height, depth)
    wanted = inferer.roi_size if isinstance(inferer.roi_size, Sequence) else [inferer.roi_size] * 3
    if len(wanted) != len(shape):
        return 1  # slice by slice
    x, y, z = (size if size and size > 0 else length for size, length in zip(wanted, shape, strict=True))
    patches = math.prod(len(starts) for starts in patch_starts(shape, (x, y, z), inferer.overlap))
    return max(1, math.ceil(patches / inferer.sw_batch_size))
