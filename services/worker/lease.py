"""The claim's heartbeat: a thread that extends the lease, tells the progress, and learns of cancel and loss."""

import logging
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Self

from services.core.db import claims
from services.core.db.session import Database
from services.core.errors import DatabaseUnavailable
from services.core.jobs import MOST_UNFINISHED_PERCENT, Claim

logger = logging.getLogger(__name__)

LEAST_SECONDS_BETWEEN_WRITES = 1.0
"""Progress is written at most this often."""


class StopReason(StrEnum):
    """Why work under a lease was stopped."""

    CANCELLED = "cancelled"
    FENCED = "fenced"
    DRAINED = "drained"
    YIELDED = "yielded"
    """It waited for the device for long; another worker's may be free sooner."""


class Lease:
    """A context manager around the work of one claim. `stop_work` is called once, from a thread, to end it early."""

    def __init__(
        self,
        database: Database,
        claim: Claim,
        *,
        lease_seconds: float,
        heartbeat_seconds: float,
        stop_work: Callable[[], None],
    ) -> None:
        self._database = database
        self._claim = claim
        self._lease_seconds = lease_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._stop_work = stop_work
        self._percent = 0
        self._news = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._stopped: StopReason | None = None
        self._thread = threading.Thread(target=self._beat, name=f"lease-{claim.job_id}", daemon=True)

    @property
    def stopped(self) -> StopReason | None:
        """Why the work was stopped; None while it was not."""
        return self._stopped

    def report_percent(self, percent: int) -> None:
        """Have the progress written soon. Returns at once."""
        with self._lock:
            self._percent = max(self._percent, min(percent, MOST_UNFINISHED_PERCENT))
        self._news.set()

    def stop(self, reason: StopReason) -> None:
        """End the work early. The first reason stays."""
        with self._lock:
            if self._stopped is not None or self._ended.is_set():
                return
            self._stopped = reason
        self._stop_work()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._ended.set()
        self._news.set()
        self._thread.join()

    def _beat(self) -> None:
        written = time.monotonic()
        while not self._ended.is_set():
            self._news.wait(self._heartbeat_seconds)
            self._news.clear()
            self._ended.wait(max(0.0, LEAST_SECONDS_BETWEEN_WRITES - (time.monotonic() - written)))
            if self._ended.is_set():
                return
            written = time.monotonic()
            try:
                beat = self._database.run(
                    claims.heartbeat, self._claim, lease_seconds=self._lease_seconds, progress_percent=self._percent
                )
            except DatabaseUnavailable as error:
                # The work goes on: whether it may count is decided by the compare-and-set that ends it.
                logger.warning("heartbeat failed", extra={"job": str(self._claim.job_id), "reason": error.details})
                self._ended.wait(LEAST_SECONDS_BETWEEN_WRITES)
                continue
            except Exception:
                # Without heartbeats the job would be given to another worker while this one still runs it.
                logger.exception("heartbeat failed", extra={"job": str(self._claim.job_id)})
                self._ended.wait(LEAST_SECONDS_BETWEEN_WRITES)
                continue
            if not beat.held:
                self.stop(StopReason.FENCED)
                return
            if beat.cancel_requested:
                self.stop(StopReason.CANCELLED)
                return
