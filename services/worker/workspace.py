"""Memory that a worker and a model host share: volumes in, masks out, no copy and no name.

The region is an anonymous memfd. It lives as long as a process has it open or mapped, so a killed process cannot
leave it behind, as it would a file in /dev/shm.
"""

import contextlib
import ctypes
import fcntl
import math
import mmap
import os
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from services.core.volumes import Shape
from services.worker.masks import Masks, plane_count

ALIGNMENT_BYTES = 64
"""A cache line, and the widest vector register: every array starts on one."""

MADV_POPULATE_WRITE = 23
"""linux/mman.h; not among Python 3.11's constants."""


class Workspace:
    """The arrays of one job: `inputs` int16, each of its shape (depth, height, width), and `masks` on their grids.

    All zero at first. They are views of the shared region. One that outlives `close` stays valid and keeps the memory.
    """

    inputs: list[NDArray[np.int16]]
    masks: Masks

    def __init__(self, input_shapes: Sequence[Shape], channel_of: Sequence[int]) -> None:
        """`channel_of`: per structure, the position of the input on whose grid its mask lies."""
        size = _size_bytes(input_shapes, channel_of)
        fd = os.memfd_create("segint-workspace", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size)
            # A host that shrank the region would end the worker with SIGBUS at its next access.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        except OSError:
            os.close(fd)
            raise
        self._map(fd, size, input_shapes, channel_of)

    @classmethod
    def attach(cls, fd: int, input_shapes: Sequence[Shape], channel_of: Sequence[int]) -> Self:
        """The workspace of another process, by its descriptor, which this one closes.

        Raises ValueError when the region has another size than these shapes need.
        """
        size = _size_bytes(input_shapes, channel_of)
        if os.fstat(fd).st_size != size:
            os.close(fd)
            raise ValueError("the shared region does not have the size that the shapes need")
        workspace = cls.__new__(cls)
        workspace._map(fd, size, input_shapes, channel_of)
        return workspace

    def _map(self, fd: int, size: int, input_shapes: Sequence[Shape], channel_of: Sequence[int]) -> None:
        self._fd = fd
        self._closed = False
        self._prefaulting: threading.Thread | None = None
        self._memory = mmap.mmap(fd, size)
        self.inputs = []
        offset = 0
        for shape in input_shapes:
            self.inputs.append(self._array(shape, np.int16, offset))
            offset += _padded_bytes(shape, 2)
        planes = []
        for plane_shape in _plane_shapes(input_shapes, channel_of):
            planes.append(self._array(plane_shape, np.uint8, offset))
            offset += _padded_bytes(plane_shape, 1)
        self.masks = Masks(planes, channel_of)

    def _array(self, shape: tuple[int, ...], dtype: DTypeLike, offset: int) -> NDArray[Any]:
        return np.frombuffer(self._memory, dtype, math.prod(shape), offset).reshape(shape)

    def prefault(self) -> None:
        """Have the kernel provide the inputs' pages in the background, on another core than the one that fills them.

        Otherwise every first touch of a page stops the decoder, about a third of its time. A kernel that does not
        know the request (Linux before 5.14) refuses it, and pages come at their first touch as ever.
        """
        size = sum(_padded_bytes(voxels.shape, 2) for voxels in self.inputs)
        if size:
            address = self.inputs[0].ctypes.data
            # The thread must not outlive the mapping: `close` waits for it.
            self._prefaulting = threading.Thread(target=_populate, args=(address, size), name="prefault", daemon=True)
            self._prefaulting.start()

    def fileno(self) -> int:
        """The descriptor of the region, to be sent to a host. Raises ValueError once closed."""
        if self._closed:
            raise ValueError("the workspace is closed")
        return self._fd

    def close(self) -> None:
        """Let go of the region. Its memory returns when no array of it is left. Closing twice is allowed."""
        if self._closed:
            return
        self._closed = True
        if self._prefaulting is not None:
            self._prefaulting.join()
        self.inputs, self.masks = [], Masks([], [])
        # BufferError: somebody still has an array. The mapping goes with the last of them.
        with contextlib.suppress(BufferError):
            self._memory.close()
        del self._memory
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _populate(address: int, size: int) -> None:
    # ctypes lets go of the interpreter during the call; mmap.madvise would hold it.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), MADV_POPULATE_WRITE)


def _plane_shapes(input_shapes: Sequence[Shape], channel_of: Sequence[int]) -> list[tuple[int, ...]]:
    return [
        (plane_count(sum(its == channel for its in channel_of)), *shape) for channel, shape in enumerate(input_shapes)
    ]


def _padded_bytes(shape: tuple[int, ...], item_bytes: int) -> int:
    return -(-math.prod(shape) * item_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _size_bytes(input_shapes: Sequence[Shape], channel_of: Sequence[int]) -> int:
    total = sum(_padded_bytes(shape, 2) for shape in input_shapes)
    total += sum(_padded_bytes(shape, 1) for shape in _plane_shapes(input_shapes, channel_of))
    return max(total, ALIGNMENT_BYTES)  # an empty region cannot be mapped
