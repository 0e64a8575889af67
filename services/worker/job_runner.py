"""One job from claim to verdict: everything between the doorbell and the row's last state."""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from services.core.blobs import Blobs
from services.core.catalogue import CatalogueEntry
from services.core.db import attempts, claims, jobs, volume_identity
from services.core.db import catalogue as catalogue_rows
from services.core.db.session import Database
from services.core.errors import (
    AttemptLost,
    Cancelled,
    DatabaseUnavailable,
    InvalidModelInput,
    InvalidRequestData,
    JobError,
    MalformedMessage,
    NotGzip,
    RuntimeUnavailable,
    SegIntError,
    StorageAway,
    StorageFull,
    Unavailable,
    VoxelCountMismatch,
)
from services.core.jobs import Claim, JobErrorCode, JobState
from services.core.model_spec import model_spec
from services.core.pending_file import PendingFile
from services.core.settings import Settings
from services.worker import pipeline
from services.worker.hosts import ModelHosts
from services.worker.lease import Lease, StopReason
from services.worker.model_host import ModelHost

logger = logging.getLogger(__name__)
T = TypeVar("T")

OUTAGE_PAUSE_SECONDS = 1.0
"""Between tries to tell a verdict to a database that is away."""

LEASES_TO_STORE = 2
"""How long a result is held for a volume that is full or fails, in leases."""

CODE_OF: dict[type[SegIntError], JobErrorCode] = {
    NotGzip: JobErrorCode.DECOMPRESSION,
    VoxelCountMismatch: JobErrorCode.DECOMPRESSION_BUFFER_SIZE_MISMATCH,
    InvalidRequestData: JobErrorCode.UNKNOWN_CLIENT,
    InvalidModelInput: JobErrorCode.UNKNOWN_CLIENT,
    MalformedMessage: JobErrorCode.UNKNOWN_CLIENT,
}
"""Whose fault a verdict is; everything else is ours."""


class JobRunner:
    """Runs one job at a time. `drain` and `close` may be called from other threads."""

    def __init__(self, settings: Settings, database: Database, blobs: Blobs, hosts: ModelHosts, worker: str) -> None:
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._hosts = hosts
        self._worker = worker
        self._policy = attempts.RetryPolicy(
            settings.attempt_limit, settings.retry_delay_seconds, settings.result_retention_hours
        )
        self._volume_identity: str | None = None
        self._draining = threading.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._lease: Lease | None = None
        self._host: ModelHost | None = None

    def run_next(self) -> bool:
        """Claim a job and bring it to a verdict; False when there was none, or no more are taken."""
        if self._draining.is_set():
            return False
        try:
            self._require_volume()
            claim = self._database.run(claims.claim, worker=self._worker, lease_seconds=self._settings.lease_seconds)
        except Unavailable as error:
            logger.warning("cannot claim, the janitor will ring again", extra={"reason": error.details})
            return False
        if claim is None:
            return False
        logger.info("claimed", extra={"job": str(claim.job_id), "model": claim.model_id, "attempt": claim.attempt})
        lease = Lease(
            self._database,
            claim,
            lease_seconds=self._settings.lease_seconds,
            heartbeat_seconds=self._settings.heartbeat_seconds,
            stop_work=self._kill_host,
        )
        with self._lock:
            self._lease = lease
        try:
            with lease:
                self._work(claim, lease)
        finally:
            with self._lock:
                self._lease = self._host = None
        return True

    def _require_volume(self) -> None:
        """A worker whose mount is missing must not take jobs: it would fail one after the other."""
        if self._volume_identity is None:
            self._volume_identity = self._database.run(volume_identity.known_identity)
        if self._volume_identity is not None:  # else no job can be there yet
            self._blobs.require(self._volume_identity)

    def drain(self) -> None:
        """Take no more jobs. The running one may finish until the drain limit, then it is given back uncounted."""
        self._draining.set()
        threading.Thread(target=self._end_after_limit, name="drain", daemon=True).start()

    def close(self) -> None:
        """End every model host."""
        self._closing.set()
        self._hosts.close()

    def _end_after_limit(self) -> None:
        if self._closing.wait(self._settings.drain_seconds):
            return
        with self._lock:
            lease = self._lease
        if lease is not None:
            lease.stop(StopReason.DRAINED)

    def _kill_host(self) -> None:
        with self._lock:
            host = self._host
        if host is not None:
            host.kill()

    def _host_started(self, host: ModelHost) -> None:
        with self._lock:
            self._host = host
            stopped = self._lease is not None and self._lease.stopped is not None
        if stopped:  # between claim and start, when there was no host to kill
            host.kill()

    def _work(self, claim: Claim, lease: Lease) -> None:
        try:
            message, stage_seconds = self._segment(claim, lease)
            self._finish(claim, lease, message, {"queued": round(claim.waited_seconds, 4), **stage_seconds})
        except Cancelled:
            self._stopped(claim, lease)
        except AttemptLost as error:
            self._lost(claim, lease, error.details)
        except (JobError, InvalidModelInput, MalformedMessage, RuntimeUnavailable) as error:
            self._failed(claim, error)
        except Exception as error:
            logger.exception("unforeseen fault", extra={"job": str(claim.job_id)})
            details = error.details if isinstance(error, SegIntError) else f"the worker failed ({error!r})"
            self._lost(claim, lease, details)

    def _segment(self, claim: Claim, lease: Lease) -> tuple[bytes, dict[str, float]]:
        entry = self._through_outage(lambda: self._database.run(catalogue_rows.find_entry, claim.model_id))
        if entry is None or entry.attachment is None or not entry.runnable:
            raise JobError(f"The model «{claim.model_id}» was disabled or removed after the volume was accepted.")
        run = pipeline.Run(
            hosts=self._hosts,
            time_limit_seconds=self._time_limit_seconds(entry),
            report_percent=lease.report_percent,
            note=partial(self._note, claim),
            host_started=self._host_started,
        )
        spec = model_spec(entry, entry.attachment, self._blobs.model_path)
        try:
            request = self._blobs.input_path(claim.input_file)
            return pipeline.segment(request, claim.input_sha256, entry, spec, run)
        finally:
            # The work is over: a heartbeat that comes after the verdict must not end a host that is warm for the next.
            with self._lock:
                self._host = None

    def _note(self, claim: Claim, details: str) -> None:
        """A remark is not worth waiting for a database that is away: it is in the log then."""
        logger.info("noted", extra={"job": str(claim.job_id), "details": details})
        try:
            self._database.run(claims.note, claim, details)
        except DatabaseUnavailable as error:
            logger.warning("not noted", extra={"job": str(claim.job_id), "reason": error.details})

    def _time_limit_seconds(self, entry: CatalogueEntry) -> int:
        own = entry.attachment.time_limit_seconds if entry.attachment else None
        return own or self._settings.model_time_limit_seconds

    def _finish(self, claim: Claim, lease: Lease, message: bytes, stage_seconds: dict[str, float]) -> None:
        """Write the result under this attempt's name, then make it visible; whoever loses that race deletes it."""
        pending = self._stored(claim, message, lease)
        won = False
        try:
            won = self._through_outage(
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
        if won:
            logger.info("succeeded", extra={"job": str(claim.job_id), "seconds": stage_seconds})
        else:
            raise Cancelled("The job was cancelled, or taken back from this worker, while its result was written.")

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
        job = self._through_outage(lambda: self._database.run(jobs.find, claim.job_id))
        return job is not None and job.result_file == result_file

    def _stopped(self, claim: Claim, lease: Lease) -> None:
        """Give a drained job back; end a cancelled one, also when the cancel came while the worker drained."""
        if lease.stopped is StopReason.DRAINED and self._through_outage(
            lambda: self._database.run(claims.release, claim)
        ):
            logger.info("released", extra={"job": str(claim.job_id)})
            return
        cancelled = self._through_outage(
            lambda: self._database.run(
                claims.cancel_claimed, claim, retention_hours=self._settings.result_retention_hours
            )
        )
        logger.info("cancelled" if cancelled else "fenced", extra={"job": str(claim.job_id)})

    def _lost(self, claim: Claim, lease: Lease, reason: str) -> None:
        if lease.stopped is not None:  # the crash is the kill's echo
            self._stopped(claim, lease)
            return
        state = self._through_outage(
            lambda: self._database.run(attempts.lose_attempt, claim, reason=reason, policy=self._policy)
        )
        logger.warning(
            "attempt lost", extra={"job": str(claim.job_id), "reason": reason, "now": state or JobState.RUNNING}
        )

    def _failed(self, claim: Claim, error: SegIntError) -> None:
        code = next((CODE_OF[kind] for kind in type(error).__mro__ if kind in CODE_OF), JobErrorCode.INTERNAL)
        self._through_outage(
            lambda: self._database.run(
                claims.fail,
                claim,
                code=code,
                reason=error.details,
                retention_hours=self._settings.result_retention_hours,
            )
        )
        logger.warning("failed", extra={"job": str(claim.job_id), "error": error.summary})

    def _through_outage(self, work: Callable[[], T]) -> T:
        """Do `work`, again and again while the database is away, until the worker closes.

        Every statement of a verdict is a compare-and-set on the claim's token, so repeating one is harmless.
        """
        while True:
            try:
                return work()
            except DatabaseUnavailable:
                if self._closing.wait(OUTAGE_PAUSE_SECONDS):
                    raise
