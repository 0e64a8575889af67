"""How a job's work ends in the database and on the volume: one verdict for each claim, whatever is away meanwhile."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from services.core.blobs import Blobs
from services.core.db import attempts, claims, jobs
from services.core.db.session import Database
from services.core.errors import (
    Cancelled,
    DatabaseUnavailable,
    InvalidModelInput,
    InvalidRequestData,
    MalformedMessage,
    NotGzip,
    SegIntError,
    StorageAway,
    StorageFull,
    VoxelCountMismatch,
)
from services.core.jobs import Claim, JobErrorCode, JobState
from services.core.pending_file import PendingFile
from services.core.settings import Settings
from services.worker.lease import Lease, StopReason
from services.worker.metrics import WorkerMetrics
from services.worker.running_job import RunningJob

logger = logging.getLogger(__name__)
T = TypeVar("T")

OUTAGE_PAUSE_SECONDS = 1.0
"""Between tries to tell a verdict to a database that is away."""

LEASES_TO_STORE = 2
"""How long a result is held for a volume that is full or fails, in leases."""

REASON_TO_GIVE_BACK = {
    StopReason.DRAINED: claims.STOPPING,
    StopReason.YIELDED: "its worker's device was in use for long; another worker may have one free",
}

CODE_OF: dict[type[SegIntError], JobErrorCode] = {
    NotGzip: JobErrorCode.DECOMPRESSION,
    VoxelCountMismatch: JobErrorCode.DECOMPRESSION_BUFFER_SIZE_MISMATCH,
    InvalidRequestData: JobErrorCode.UNKNOWN_CLIENT,
    InvalidModelInput: JobErrorCode.UNKNOWN_CLIENT,
    MalformedMessage: JobErrorCode.UNKNOWN_CLIENT,
}
"""Whose fault a verdict is; everything else is ours."""


class Verdicts:
    """Tells verdicts until `close`. From any thread."""

    def __init__(self, settings: Settings, database: Database, blobs: Blobs, metrics: WorkerMetrics) -> None:
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._metrics = metrics
        self._policy = attempts.RetryPolicy(
            settings.attempt_limit, settings.retry_delay_seconds, settings.result_retention_hours
        )
        self._closing = threading.Event()

    def close(self) -> None:
        """Wait for nothing that is away any more."""
        self._closing.set()

    def finish(self, job: RunningJob, message: bytes, stage_seconds: dict[str, float]) -> None:
        """Write the result under this attempt's name, then make it visible; whoever loses that race deletes it.

        Raises:
            Cancelled: the claim did not hold any more.
            StorageFull, StorageAway: the result could not be written for too long.
        """
        claim = job.claim
        pending = self._stored(claim, message, job.lease)
        won = False
        try:
            won = self.through_outage(
                lambda: self._database.run(
                    claims.succeed,
                    claim,
                    result_file=pending.target.name,
                    result_bytes=pending.size_bytes,
                    result_sha256=pending.sha256,
                    stage_seconds=stage_seconds,
                    retention_hours=self._settings.result_retention_hours,
                )
            )
        finally:
            if not won and not self._visible(claim, pending.target.name):
                self._blobs.delete_result(pending.target.name)
        if not won:
            raise Cancelled("The job was cancelled, or taken back from this worker, while its result was written.")
        self._metrics.job_succeeded(claim.model_id, stage_seconds)
        logger.info("succeeded", extra={"job": str(claim.job_id), "seconds": stage_seconds})

    def _stored(self, claim: Claim, message: bytes, lease: Lease) -> PendingFile:
        """The result on the volume. One that is full or fails is tried for a while: the model's work is done already.

        Raises:
            StorageFull, StorageAway: it is so for too long.
        """
        give_up_at = time.monotonic() + LEASES_TO_STORE * self._settings.lease_seconds
        while True:
            try:
                with self._blobs.new_result(claim.job_id, claim.token) as pending:
                    pending.write(message)
                    pending.commit()
            except (StorageFull, StorageAway) as error:
                if lease.stopped is not None or time.monotonic() > give_up_at:
                    raise
                logger.warning("result not stored yet", extra={"job": str(claim.job_id), "reason": error.details})
                self._closing.wait(OUTAGE_PAUSE_SECONDS)
            else:
                return pending

    def _visible(self, claim: Claim, result_file: str) -> bool:
        """Whether the row names this result after all: the reply to a commit may have been lost."""
        job = self.through_outage(lambda: self._database.run(jobs.find, claim.job_id))
        return job is not None and job.result_file == result_file

    def stopped(self, job: RunningJob) -> None:
        """Give back a job that was drained, or waited too long; end a cancelled one, even if the worker drains.

        Of several calls the first counts: a job that is being decoded is given back before its thread knows.
        """
        with job.settling:
            if not job.settled:
                self._metrics.job_ended(job.claim.model_id, self._settle_stopped(job))
                job.settled = True

    def _settle_stopped(self, job: RunningJob) -> str:
        claim = job.claim
        outcome = "fenced"
        reason = REASON_TO_GIVE_BACK.get(job.lease.stopped) if job.lease.stopped else None
        if reason is not None and self.through_outage(lambda: self._database.run(claims.release, claim, reason=reason)):
            outcome = "released"
        elif self.through_outage(
            lambda: self._database.run(
                claims.cancel_claimed, claim, retention_hours=self._settings.result_retention_hours
            )
        ):
            outcome = "cancelled"
        logger.info(outcome, extra={"job": str(claim.job_id), "reason": reason})
        return outcome

    def lost(self, job: RunningJob, reason: str) -> None:
        """The attempt is over; another may follow."""
        if job.lease.stopped is not None:  # the crash is the kill's echo
            self.stopped(job)
            return
        state = self.through_outage(
            lambda: self._database.run(attempts.lose_attempt, job.claim, reason=reason, policy=self._policy)
        )
        self._metrics.job_ended(job.claim.model_id, "lost" if state is not None else "fenced")
        if state is JobState.FAILED:
            self._metrics.job_failed(job.claim.model_id, JobErrorCode.INTERNAL)
        logger.warning(
            "attempt lost", extra={"job": str(job.claim.job_id), "reason": reason, "now": state or JobState.RUNNING}
        )

    def failed(self, job: RunningJob, error: SegIntError) -> None:
        """The job is over: another attempt would only repeat this."""
        code = next((CODE_OF[kind] for kind in type(error).__mro__ if kind in CODE_OF), JobErrorCode.INTERNAL)
        told = self.through_outage(
            lambda: self._database.run(
                claims.fail,
                job.claim,
                code=code,
                reason=error.details,
                retention_hours=self._settings.result_retention_hours,
            )
        )
        if told:
            self._metrics.job_ended(job.claim.model_id, "failed")
            self._metrics.job_failed(job.claim.model_id, code)
            logger.warning("failed", extra={"job": str(job.claim.job_id), "error": error.summary})
        else:  # given back, or taken back, before the fault was found
            self.stopped(job)

    def through_outage(self, work: Callable[[], T]) -> T:
        """Do `work`, again and again while the database is away, until the worker closes.

        Every statement of a verdict is a compare-and-set on the claim's token, so repeating one is harmless.
        """
        while True:
            try:
                return work()
            except DatabaseUnavailable:
                if self._closing.wait(OUTAGE_PAUSE_SECONDS):
                    raise
