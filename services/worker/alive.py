"""`python -m services.worker.alive`: the probe of a worker, for containers. It says nothing about Redis or PostgreSQL.

A composition root of its own, which imports nothing but the standard library: it runs every few seconds beside a worker
that needs the processor.
"""

import argparse
import os
import sys
import time
from pathlib import Path

DEFAULT_LIMIT_SECONDS = 60.0
"""A dozen of the worker's own intervals."""


def main() -> int:
    """0 while the worker's heartbeat file is younger than the limit; else 1, with one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python -m services.worker.alive", description=__doc__)
    parser.add_argument(
        "--limit-seconds",
        type=float,
        default=DEFAULT_LIMIT_SECONDS,
        metavar="N",
        help="oldest sign of life that is accepted (default: %(default)g)",
    )
    limit_seconds = parser.parse_args().limit_seconds
    named = os.environ.get("SEGINT_HEARTBEAT_FILE", "")
    if not named:
        return _fails("SEGINT_HEARTBEAT_FILE is not set; give it to the worker and to this probe.")
    try:
        beat_seconds = float(Path(named).read_text(encoding="ascii"))
    except FileNotFoundError:
        return _fails(f"{named} is not there: the worker is not ready yet, or writes another file.")
    except (OSError, ValueError) as error:
        return _fails(f"{named} cannot be read ({error}); see that only the worker writes it.")
    age_seconds = time.monotonic() - beat_seconds
    if not 0 <= age_seconds <= limit_seconds:
        return _fails(
            f"The worker's last sign of life is {age_seconds:.0f} s old, and {limit_seconds:g} s are allowed; its log "
            "may say what hangs."
        )
    return 0


def _fails(sentence: str) -> int:
    sys.stderr.write(sentence + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
