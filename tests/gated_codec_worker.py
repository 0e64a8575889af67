"""A worker whose decoding and encoding wait while a test holds them: `python -m tests.gated_codec_worker`.

`TEST_GATES` names a folder. While it holds `decode.hold` or `encode.hold`, that stage stands still at its beginning,
which it tells by `decode.reached` or `encode.reached`.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from services.worker import pipeline
from services.worker.__main__ import main

P = ParamSpec("P")
T = TypeVar("T")
POLL_SECONDS = 0.02


def held(stage: str, work: Callable[P, T]) -> Callable[P, T]:
    """`work`, once nothing holds the stage."""
    folder = Path(os.environ["TEST_GATES"])

    def wait_and_work(*args: P.args, **kwargs: P.kwargs) -> T:
        while (folder / f"{stage}.hold").exists():
            (folder / f"{stage}.reached").touch()
            time.sleep(POLL_SECONDS)
        return work(*args, **kwargs)

    return wait_and_work


if __name__ == "__main__":
    pipeline.inflate_into = held("decode", pipeline.inflate_into)  # type: ignore[attr-defined] # what it imports runs
    pipeline.deflate_pieces = held("encode", pipeline.deflate_pieces)  # type: ignore[attr-defined] # as above
    sys.exit(main())
