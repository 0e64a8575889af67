"""How much memory a model takes for itself, as the kernel counts it."""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_ANONYMOUS = re.compile(r"^RssAnon:\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """What a loaded model takes, or may take."""

    host_bytes: int = 0
    """Of the machine, by `anonymous_bytes`."""
    device_bytes: int = 0
    """Of the GPUs, as its library has reserved at most."""

    def __add__(self, other: Self) -> "MemoryUse":
        return MemoryUse(self.host_bytes + other.host_bytes, self.device_bytes + other.device_bytes)


def anonymous_bytes(pid: int) -> int:
    """Resident memory of a process and all it started that is backed by no file and shared with nobody.

    The volumes and masks that a worker shares with a host do not count, nor do mapped weights: the kernel can drop
    those. A process that ends meanwhile counts for nothing. `/proc/PID/status`, field RssAnon; see proc(5).
    """
    total = 0
    pids = [pid]
    while pids:
        process = Path(f"/proc/{pids.pop()}")
        with contextlib.suppress(OSError):
            found = _ANONYMOUS.search((process / "status").read_text(encoding="utf-8", errors="replace"))
            total += int(found[1]) * 1024 if found else 0
            for task in (process / "task").iterdir():
                with contextlib.suppress(OSError):
                    pids += map(int, (task / "children").read_text(encoding="ascii").split())
    return total
