"""Keep freed memory for the next allocation while a model runs, and give it back between runs.

glibc maps every large array anew and unmaps it when it is freed: the kernel then clears the same pages over and over.
A network's forward pass on a CPU allocates hundreds of megabytes of intermediate tensors, and a patch later the same
again; that clearing is a third of its time. For patches only: whole volumes, whose size differs from layer to layer,
leave gaps in such a heap and take half as much memory again. `mallopt(3)` has the numbers.
"""

import ctypes
import math
import mmap
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4

KEPT_BYTES = 2**31 - 1
"""Freed at the end of the heap before any goes back: what fits into mallopt's int."""
GROWN_BYTES = 64 * 2**20
"""By which the heap grows at a time."""

_libc = ctypes.CDLL(None)
_mallopt: Callable[[int, int], int] | None = getattr(_libc, "mallopt", None)
_malloc_trim: Callable[[int], int] | None = getattr(_libc, "malloc_trim", None)


def keep_freed_memory() -> None:
    """From now on, in this process. Does nothing where the C library is not glibc."""
    if _mallopt is None or _malloc_trim is None:
        return
    _mallopt(M_MMAP_MAX, 0)
    _mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    _mallopt(M_TOP_PAD, GROWN_BYTES)


def lasting(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of zeros that outlives patches: on a CPU apart from the heap, where it would lie in their way."""
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or size == 0:
        return torch.zeros(*shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, size), dtype=dtype).view(*shape)


def give_back_freed_memory() -> None:
    """To the kernel, so that a model which waits for its next job takes what it is and no more."""
    if _malloc_trim is not None:
        _malloc_trim(0)
