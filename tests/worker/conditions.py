"""Wait for a condition, with a limit: tests never sleep for a guess."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], limit_seconds: float = 60.0) -> T:
    """The first true value of `condition`. Raises TimeoutError past the limit."""
    deadline = time.monotonic() + limit_seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true within {limit_seconds} s")
        time.sleep(0.01)
    return value


def is_running(pid: int) -> bool:
    """Whether a process runs. One that has ended and waits to be reaped by whoever adopted it does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def named_shared_memory() -> set[str]:
    """Segments in /dev/shm, whoever made them, but those of database servers, which come and go beside any test."""
    return {path.name for path in Path("/dev/shm").iterdir() if not path.name.startswith("PostgreSQL.")}


def left_in_shared_memory(before: set[str], limit_seconds: float = 30.0) -> set[str]:
    """Segments that were not there before, and stay: what other test processes make meanwhile goes again."""
    left = named_shared_memory() - before
    deadline = time.monotonic() + limit_seconds
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left &= named_shared_memory()
    return left


def mapped_by_name() -> set[str]:
    """Segments of /dev/shm that this process has mapped."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return {line.partition("/dev/shm/")[2] for line in lines if "/dev/shm/" in line}
