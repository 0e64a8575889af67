"""The worker, but with the standard library's gzip at its default level: what the benchmark compares with.

Dramatiq forks its worker process, so what is replaced here is replaced there.
"""

import gzip
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.worker import pipeline
from services.worker.__main__ import main


def inflate_into(data: memoryview, target: NDArray[Any]) -> None:
    """Inflate whole, then copy to where the model host reads."""
    target[...] = np.frombuffer(gzip.decompress(data), target.dtype).reshape(target.shape)


def deflate_pieces(pieces: Iterable[NDArray[Any]], _: int) -> bytes:
    """Deflate whole."""
    return gzip.compress(b"".join(piece.tobytes() for piece in pieces))


if __name__ == "__main__":
    pipeline.inflate_into = inflate_into  # type: ignore[attr-defined] # that module's own import is what runs
    pipeline.deflate_pieces = deflate_pieces  # type: ignore[attr-defined,assignment] # as above
    sys.exit(main())
