"""What a worker does when there may be work: jobs come first, then models that somebody wants tried."""

import logging
import threading

from services.worker.job_runner import JobRunner
from services.worker.model_checks import ModelChecks
from services.worker.pulse import WORK, Pulse

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often a worker that leaves models to other pools looks for work of its own."""


class Work:
    """Runs what is there, in one thread at a time. Every method may be called from any thread."""

    def __init__(self, runner: JobRunner, checks: ModelChecks, pulse: Pulse) -> None:
        self._runner = runner
        self._checks = checks
        self._pulse = pulse
        self._busy = threading.Lock()

    def do(self) -> None:
        """Until there is none left that this worker may do."""
        with self._busy:
            self._do()

    def do_unless_busy(self) -> None:
        """The same, or nothing where another thread is at it."""
        if self._busy.acquire(blocking=False):
            try:
                self._do()
            finally:
                self._busy.release()

    def _do(self) -> None:
        try:
            self._runner.run_until_idle()
            while not self._runner.draining and self._checks_one():
                self._runner.run_until_idle()
        finally:
            self._pulse.rest(WORK)

    def _checks_one(self) -> bool:
        self._pulse.due(WORK, self._checks.lease_seconds)
        return self._checks.run_one()


class Lookout:
    """Looks for work without being rung for.

    Doorbells are anonymous: with several pools, one that was rung for a job may be answered by a worker which leaves
    that job to others. Where every worker runs every model nobody needs to look.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look_again_and_again, name="lookout", daemon=True)

    def start(self) -> None:
        """Begin. Returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Returns at once; a job that was found runs on."""
        self._stopping.set()

    def join(self, limit_seconds: float) -> None:
        """Wait until what it found is done with."""
        self._thread.join(0.1)
        if self._thread.is_alive():
            logger.info("waiting for a job that nobody rang for")
            self._thread.join(limit_seconds)

    def _look_again_and_again(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self._work.do_unless_busy()
            except Exception:  # what it is there for is to look again
                logger.exception("the lookout failed")
