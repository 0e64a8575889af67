"""A worker whose rounds are soon overdue, which it tells at once: `python -m tests.impatient_worker`."""

import sys

from services.worker import job_runner, pulse
from services.worker.__main__ import main

if __name__ == "__main__":
    job_runner.ROUND_LIMIT_SECONDS = 2.0  # type: ignore[attr-defined] # what it imports runs
    pulse.WRITE_SECONDS = 0.2
    sys.exit(main())
