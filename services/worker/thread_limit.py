"""How many threads a library may take that does not ask OpenMP itself."""

import os
from collections.abc import Mapping


def thread_limit(environment: Mapping[str, str] = os.environ) -> int | None:
    """What OMP_NUM_THREADS says; None where it says nothing that is a number above zero.

    OpenMP takes a list there, one number for each level of nesting: the first counts.
    """
    first = environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def thread_count() -> int:
    """The limit, or as many as this process may use processors."""
    return thread_limit() or len(os.sched_getaffinity(0))
