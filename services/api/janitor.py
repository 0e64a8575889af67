"""The janitor: closes every gap that a crash, a lost message or a passed time leaves.

It runs in every API process, because workers may be scaled to zero; an advisory lock lets one at a time work.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import anyio
from anyio import to_thread

from services.api.metrics import Metrics
from services.api.mount import Mount
from services.api.orphans import Orphans
from services.core.blobs import Blobs
from services.core.db import attempts, janitor_rounds, jobs, locks, model_checks, retention, workers
from services.core.db.session import AsyncDatabase, Session
from services.core.errors import Unavailable
from services.core.jobs import JobState
from services.core.queue import Doorbell, DoorbellUnavailable
from services.core.settings import Settings

logger = logging.getLogger(__name__)

LOOK_AT_WORKERS_SECONDS = 600.0
"""Between two looks for workers that ended long ago."""

MOST_DOORBELLS = 64
"""That wait at one time for want of workers: more than a deployment has idle ones."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round found."""

    lost: list[attempts.LostAttempt]
    held_up: list[attempts.HeldUpLease]
    ready: int
    expired: int


class Janitor:
    """One deployment's janitor.

    Two loops: one keeps the queue going, the other tidies the volume. Deleting from a slow volume must not keep leases
    and doorbells waiting.
    """

    def __init__(
        self,
        settings: Settings,
        database: AsyncDatabase,
        blobs: Blobs,
        mount: Mount,
        doorbell: Doorbell,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._mount = mount
        self._doorbell = doorbell
        self._metrics = metrics
        self._orphans = Orphans(settings, database, blobs, metrics)
        self._held_up: set[attempts.HeldUpLease] = set()
        self._forget_workers_at = 0.0

    async def run(self) -> None:
        """Work until cancelled; a database, a volume or a Redis that is away costs rounds, not the task."""
        async with anyio.create_task_group() as loops:
            loops.start_soon(self._again_and_again, self.keep_going, "queue")
            loops.start_soon(self._again_and_again, self.tidy, "volume")

    async def _again_and_again(self, work: Callable[[], Awaitable[None]], loop: str) -> None:
        while True:
            try:
                await work()
                self._metrics.janitor.rounds.labels(loop).inc()
            except Unavailable as error:
                self._metrics.janitor.failed_rounds.labels(loop).inc()
                logger.warning("janitor skipped a round", extra={"reason": error.details})
            except Exception:
                # A janitor that died silently would be the worst fault of all: log, and try again next round.
                self._metrics.janitor.failed_rounds.labels(loop).inc()
                logger.exception("janitor failed in a round")
            await asyncio.sleep(self._settings.janitor_interval_seconds)

    async def keep_going(self) -> None:
        """One round of leases, expiry and doorbells, unless another process leads."""
        found = await self._database.run(self._settle_rows)
        if found is None:
            self._metrics.janitor.held_up.set(0)  # whoever leads now says so
            return
        self._count(found)
        for attempt in found.lost:
            logger.warning("lease expired", extra={"job": str(attempt.job_id), "now": attempt.state.value})
        self._tell_held_up(found.held_up)
        await to_thread.run_sync(self._top_up, found.ready)
        if found.lost:
            await to_thread.run_sync(self._delete_attempts, found.lost)

    async def tidy(self) -> None:
        """Delete what the state of its row no longer needs, and look for orphans.

        Which files those are, one process at a time is told; that two delete the same one is harmless.
        """
        await self._mount.require()
        deletable = await self._database.run(self._deletable)
        deleted = await to_thread.run_sync(self._delete, deletable)
        if deleted:
            await self._database.run(retention.forget_files, deleted)
        await self._orphans.look()

    def _settle_rows(self, session: Session) -> Round | None:
        settings = self._settings
        if not locks.try_lock(session, locks.Lock.JANITOR):
            return None
        policy = attempts.RetryPolicy(
            settings.attempt_limit, settings.retry_delay_seconds, settings.result_retention_hours
        )
        if time.monotonic() >= self._forget_workers_at:
            self._forget_workers_at = time.monotonic() + LOOK_AT_WORKERS_SECONDS
            workers.forget_silent(session)
        expired = retention.expire(session)
        if expired:
            logger.info("expired", extra={"jobs": expired})
        lost: list[attempts.LostAttempt] = []
        held_up: list[attempts.HeldUpLease] = []
        if janitor_rounds.note_round(session, lease_seconds=settings.lease_seconds):
            lost = attempts.reap_expired_leases(session, lease_seconds=settings.lease_seconds, policy=policy)
            held_up = attempts.held_up_leases(session, lease_seconds=settings.lease_seconds)
        ready = jobs.count_ready(session) + model_checks.count_waiting(session)
        return Round(lost=lost, held_up=held_up, ready=ready, expired=expired)

    def _count(self, found: Round) -> None:
        """Once the round is committed: what was rolled back did not happen."""
        counted = self._metrics.janitor
        counted.expired.inc(found.expired)
        counted.held_up.set(len(found.held_up))
        for attempt in found.lost:
            counted.leases.labels(attempt.state.value).inc()
            if attempt.state is JobState.FAILED:
                self._metrics.job_failed(attempt.model_id)

    def _tell_held_up(self, held_up: list[attempts.HeldUpLease]) -> None:
        """Each once, when it is found."""
        for lease in set(held_up) - self._held_up:
            logger.error(
                "a backend of PostgreSQL has stopped and holds up a job; end that process on the database's machine",
                extra={"job": str(lease.job_id), "backend_pid": lease.backend_pid},
            )
        self._held_up = set(held_up)

    def _deletable(self, session: Session) -> list[retention.DeletableFiles]:
        if not locks.try_lock(session, locks.Lock.TIDYING):
            return []
        return retention.deletable_files(session, self._settings.keep_inputs)

    def _delete_attempts(self, lost: list[attempts.LostAttempt]) -> None:
        """What lost attempts may have written."""
        for attempt in lost:
            with self._logged(attempt.job_id):
                self._blobs.delete_attempt(attempt.job_id, attempt.token)

    def _delete(self, deletable: list[retention.DeletableFiles]) -> list[retention.DeletableFiles]:
        """Delete files, and give back whose row may forget them.

        Files go before the row forgets them: a crash between the two repeats a deletion. One that cannot be deleted
        stays its row's, and holds up no other.
        """
        deleted = []
        for files in deletable:
            with self._logged(files.job_id):
                if files.input_file is not None:
                    self._blobs.delete_input(files.input_file)
                    self._metrics.janitor.files.labels("input").inc()
                if files.result_file is not None:
                    self._blobs.delete_result(files.result_file)
                    self._metrics.janitor.files.labels("result").inc()
                deleted.append(files)
        return deleted

    def _top_up(self, ready: int) -> None:
        """A doorbell for each job that could run, up to more than there are idle workers.

        A worker that was rung for goes on until nothing is left, so that one for each idle worker is enough. Too many
        are harmless, but where no pool runs the jobs that wait, each is answered in vain, and rung again next round.
        """
        try:
            missing = min(ready, MOST_DOORBELLS) - self._doorbell.waiting() if ready else 0
            if missing > 0:
                self._doorbell.ring(missing)
                self._metrics.janitor.doorbells.inc(missing)
        except DoorbellUnavailable as error:
            logger.warning("janitor could not ring", extra={"reason": str(error), "ready": ready})

    @contextmanager
    def _logged(self, job_id: UUID) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            self._metrics.janitor.file_faults.inc()
            logger.error("file not deleted", extra={"job": str(job_id), "reason": str(error)})
