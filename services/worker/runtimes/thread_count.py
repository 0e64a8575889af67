"""How many threads a library that does not use OpenMP is to use: as many as it is told."""

import os


def thread_count() -> int | None:
    """What OMP_NUM_THREADS says; None where it says nothing: then it is the library's own choice."""
    text = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(text) if text.isdecimal() and int(text) > 0 else None
