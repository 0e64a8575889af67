"""A process with a clock of its own, by libfaketime."""

import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

LIBRARY = Path("vendor/libfaketime/src/libfaketime.so.1")


def skewed(seconds: float) -> Mapping[str, str]:
    """The environment of a process whose wall clock is that much ahead, or behind if negative.

    Its monotonic clock is right, as it is on a machine whose time is set wrong. Skips the test where the library
    does not work, which the wheel brings for one kind of processor only.
    """
    spec = find_spec("libfaketime")
    assert spec is not None and spec.origin is not None
    environment = {
        "LD_PRELOAD": str(Path(spec.origin).parent / LIBRARY),
        "FAKETIME": f"{seconds:+.0f}s",
        "DONT_FAKE_MONOTONIC": "1",
    }
    told = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"], env=environment, capture_output=True, check=False
    )
    off_by = float(told.stdout or 0) - time.time()
    if abs(off_by - seconds) > 30:
        pytest.skip(f"libfaketime does nothing here: {told.stderr.decode().strip() or off_by}")
    return environment
