"""Wait for a condition, with a limit: tests never sleep for a guess."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], limit_seconds: float = 30.0) -> T:
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


def named_shared_memory() -> list[Path]:
    """Segments in /dev/shm, but those of database servers, which come and go beside any test."""
    return sorted(path for path in Path("/dev/shm").iterdir() if not path.name.startswith("PostgreSQL."))
