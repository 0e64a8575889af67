"""What sums.c does, where it was compiled when SegInt was installed: the arithmetic of `sums` in one pass over memory.

PyTorch takes the scores through memory once for each operation, which on a CPU costs several times what it computes.
"""

import ctypes
import platform
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from services.worker.engine.compiled.build import digest_of

if TYPE_CHECKING:
    from services.worker.engine.sums import Sums

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "sums.c"
MOST_WAITING = 3
SCORES = frozenset({torch.float32, torch.float16, torch.bfloat16})
"""Types that single precision has every digit of."""
WRITTEN = frozenset({torch.float32, torch.float16})
ENOUGH = 2**16
"""Scores that one thread more is worth waking for: it takes as long as they do."""
PARTS_EACH = 4
"""For each thread: they do not begin at the same time."""
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
    """Whether it was compiled, from this source and for a processor like this one."""
    return _library() is not None


def complaint() -> str | None:
    """A sentence for whoever waits, where something was compiled and cannot be used."""
    _, fault = _loaded()
    return fault and f"The engine's compiled code is not used, so this takes longer: {fault}; run make compiled."


def _library() -> ctypes.CDLL | None:
    library, _ = _loaded()
    return library


@cache
def _loaded() -> tuple[ctypes.CDLL | None, str | None]:
    """The library, if there is one; else what is wrong with it, if there is one."""
    path = FOLDER / f"libsums-{platform.machine()}.so"
    # On x86 PyTorch names the best instructions that it may use; DEFAULT has no AVX2.
    if not path.exists() or (platform.machine() == "x86_64" and torch.backends.cpu.get_cpu_capability() == "DEFAULT"):
        return None, None
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return None, f"it cannot be loaded ({error})"
    if ctypes.c_uint64.in_dll(library, "source_digest").value != digest_of(SOURCE):
        return None, f"{path.name} was not compiled from the {SOURCE.name} beside it"
    for function in (library.write_half, library.write_float, library.write_bits):
        function.restype = NUMBER
    return library, None


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


def write(sums: "Sums", to: Tensor) -> bool:
    """As `Sums.write` does."""
    if tuple(to.shape) != sums.shape:
        raise ValueError(f"sums of shape {sums.shape} do not fit into {tuple(to.shape)}")
    name = "write_half" if to.dtype == torch.float16 else "write_float"
    return _call(name, sums, [to], [*to.stride()[:3]]) == 0


def greatest(sums: "Sums", tables: Tensor) -> tuple[Tensor, bool]:
    """As `Sums.greatest` does."""
    tables = tables.contiguous()
    if tables.dtype != torch.uint8 or tables.device.type != "cpu" or tables.shape[1] < len(sums.scores):
        raise ValueError(f"tables of shape {tuple(tables.shape)} are not the bits of {len(sums.scores)} outputs")
    planes = torch.empty((len(tables), *sums.scores.shape[1:]), dtype=torch.uint8)
    return planes, _call("write_bits", sums, [planes, tables], tables.shape) == 0


def _call(name: str, sums: "Sums", tensors: Sequence[Tensor], numbers: Sequence[int]) -> int:
    """What the function returns for each part of the rows, added up; in as many threads as PyTorch would take."""
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
    arguments = [
        ctypes.byref(asked),
        *(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors),
        *(NUMBER(number) for number in numbers),
    ]
    function: Callable[..., int] = getattr(_library(), name)
    threads = max(1, min(torch.get_num_threads(), scores.numel() // ENOUGH))
    parts = threads * PARTS_EACH if threads > 1 else 1
    todo = deque(range(parts))

    # Whoever is free takes the next part, so none waits for a thread that comes late, or not at all.
    def work(_used: object) -> int:
        lost = 0
        while True:
            try:
                part = todo.popleft()
            except IndexError:
                return lost
            lost += function(*arguments, NUMBER(part), NUMBER(parts))  # ctypes lets go of the interpreter meanwhile

    used = (sums, scores, tensors)  # which stay for as long as a thread may look at them
    others = []
    with suppress(RuntimeError):  # No more threads can be started: then those that are there do it all.
        for _ in range(1, threads):
            others.append(_threads().submit(work, used))
    return work(used) + sum(other.result() for other in others)
