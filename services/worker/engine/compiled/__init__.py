"""What sums.c does, where it was compiled when SegInt was installed: the arithmetic of `sums` in one pass over memory.

PyTorch takes the scores through memory once for each operation, which on a CPU costs several times what it computes.
"""

import ctypes
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from services.worker.engine.sums import Sums

FOLDER = Path(__file__).parent
MOST_WAITING = 3
SCORES = frozenset({torch.float32, torch.float16, torch.bfloat16})
"""Types that single precision has every digit of."""
WRITTEN = frozenset({torch.float32, torch.float16})
ENOUGH = 2**16
"""Scores that one thread more is worth waking for: it takes as long as they do."""
NUMBER = ctypes.c_int64


class _Waiting(ctypes.Structure):
    _fields_ = (
        ("first", ctypes.c_void_p),
        *((step, NUMBER) for step in ("channel", "depth", "height")),
        *((length, NUMBER) for length in ("depths", "heights", "widths")),
    )


class _Sums(ctypes.Structure):
    _fields_ = (
        ("scores", ctypes.c_void_p),
        *((step, NUMBER) for step in ("score_channel", "score_depth", "score_height")),
        ("weights", ctypes.c_void_p),
        *((step, NUMBER) for step in ("weight_depth", "weight_height")),
        ("waiting", _Waiting * MOST_WAITING),
        *((count, NUMBER) for count in ("waits", "outputs", "channels", "depths", "heights", "widths")),
    )


def is_available() -> bool:
    """Whether it was compiled, and for a processor like this one."""
    return _library() is not None


@cache
def _library() -> ctypes.CDLL | None:
    path = FOLDER / f"libsums-{platform.machine()}.so"
    # On x86 PyTorch names the best instructions that it may use; DEFAULT has no AVX2.
    if not path.exists() or (platform.machine() == "x86_64" and torch.backends.cpu.get_cpu_capability() == "DEFAULT"):
        return None
    library = ctypes.CDLL(str(path))
    if NUMBER.in_dll(library, "size_of_sums").value != ctypes.sizeof(_Sums):
        raise RuntimeError(f"{path} was compiled for another version of SegInt; run make compiled")
    for function in (library.write_half, library.write_float, library.write_bits):
        function.restype = NUMBER
    return library


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="sums")


def takes(sums: "Sums", to: Tensor | None = None) -> bool:
    """Whether these can be worked out here, into `to` where that is given."""
    return (
        sums.scores.device.type == "cpu"
        and sums.scores.dtype in SCORES
        and (sums.weights is None or sums.weights.stride(2) == 1)
        and len(sums.waiting) <= MOST_WAITING
        and all(more.dtype == torch.float16 and more.stride(3) == 1 for more in sums.waiting)
        and (to is None or (to.dtype in WRITTEN and to.stride(3) == 1))
        and is_available()
    )


def write(sums: "Sums", to: Tensor) -> None:
    """As `Sums.write` does."""
    name = "write_half" if to.dtype == torch.float16 else "write_float"
    _call(name, sums, ctypes.c_void_p(to.data_ptr()), *(NUMBER(step) for step in to.stride()[:3]))


def greatest(sums: "Sums", tables: Tensor) -> tuple[Tensor, bool]:
    """As `Sums.greatest` does."""
    tables = tables.contiguous()
    planes = torch.empty((len(tables), *sums.scores.shape[1:]), dtype=torch.uint8)
    pointers = (ctypes.c_void_p(each.data_ptr()) for each in (planes, tables))
    lost = _call("write_bits", sums, *pointers, *(NUMBER(length) for length in tables.shape))
    return planes, lost == 0


def _call(name: str, sums: "Sums", *arguments: object) -> int:
    """What the function's parts return, added up: one part for each thread that PyTorch would take."""
    scores = sums.scores
    if scores.numel() == 0:
        return 0
    if scores.dtype != torch.float32 or scores.stride(3) != 1:
        scores = scores.float().contiguous()
    asked = _Sums(
        scores.data_ptr(),
        *scores.stride()[:3],
        None if sums.weights is None else sums.weights.data_ptr(),
        *((0, 0) if sums.weights is None else sums.weights.stride()[:2]),
        (_Waiting * MOST_WAITING)(
            *(_Waiting(more.data_ptr(), *more.stride()[:3], *more.shape[1:]) for more in sums.waiting)
        ),
        len(sums.waiting),
        len(scores),
        *sums.shape,
    )
    parts = max(1, min(torch.get_num_threads(), scores.numel() // ENOUGH))
    function: Callable[..., int] = getattr(_library(), name)

    def run(part: int) -> int:
        # ctypes lets go of the interpreter meanwhile.
        return function(ctypes.byref(asked), *arguments, NUMBER(part), NUMBER(parts))

    others = [_threads().submit(run, part) for part in range(1, parts)]
    return run(0) + sum(other.result() for other in others)
