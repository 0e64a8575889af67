"""The jobs of one worker: some are decoded or encoded while one has the device, and all end in a verdict."""

import logging
import threading
from functools import partial
from importlib.metadata import version

from services.core.blobs import Blobs
from services.core.catalogue import CatalogueEntry
from services.core.db import claims, provenance
from services.core.db.session import Database
from services.core.errors import (
    AttemptLost,
    Cancelled,
    DatabaseUnavailable,
    InvalidModelInput,
    JobError,
    MalformedMessage,
    RuntimeUnavailable,
    SegIntError,
    Unavailable,
)
from services.core.jobs import Claim, Priority
from services.core.model_spec import model_spec
from services.core.queue import Doorbell, DoorbellUnavailable
from services.core.settings import Settings
from services.worker import pipeline
from services.worker.claiming import Claiming
from services.worker.device_turns import DeviceTurns
from services.worker.hosts import ModelHosts
from services.worker.lease import StopReason
from services.worker.metrics import WorkerMetrics
from services.worker.preload import Preload
from services.worker.pulse import ROUND_LIMIT_SECONDS, WORK, Pulse
from services.worker.running_job import RunningJob, Stage
from services.worker.verdicts import OUTAGE_PAUSE_SECONDS, Verdicts

logger = logging.getLogger(__name__)

SOFTWARE_VERSION = version("segint")

BUSY_POLL_SECONDS = 0.25
"""How often a worker that has a job looks for another one. Idle workers are rung for."""

CLOSE_SECONDS = 5.0
"""For the jobs whose hosts were ended to say so; one that hangs is left to its lease."""

LEAST_BATCH_JOBS = 2
"""One on the device and one that is decoded meanwhile."""


class JobRunner:
    """Runs up to `jobs_at_once` jobs. `drain` and `close` may be called from other threads."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        blobs: Blobs,
        hosts: ModelHosts,
        doorbell: Doorbell,
        worker: str,
        metrics: WorkerMetrics,
        pulse: Pulse,
    ) -> None:
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._hosts = hosts
        self._doorbell = doorbell
        self._pulse = pulse
        self._claiming = Claiming(settings, database, blobs, worker)
        self._metrics = metrics
        self._verdicts = Verdicts(settings, database, blobs, metrics)
        self._preload = Preload(settings.preload_models, self._claiming, blobs, database, hosts)
        self._device = DeviceTurns()
        self._draining = threading.Event()
        self._closing = threading.Event()
        self._changed = threading.Condition()
        self._jobs: list[RunningJob] = []
        self._changes = 0
        self._long_job: RunningJob | None = None
        """One that had the device for longer than another was to wait for it."""
        self._misjudged = False
        """Whether that happened with it again, though it was thought to be nearly done."""
        self._last_seconds: dict[str, float] = {}
        """What each model's last run took."""
        metrics.watch_jobs_in_hand(lambda: len(self._jobs))

    def start(self) -> None:
        """Begin to load the models that are to be warm before the first job. Returns at once."""
        self._preload.start()

    def until_ready(self) -> None:
        """Wait until those models are loaded, or are known not to be loadable."""
        self._preload.wait()

    @property
    def draining(self) -> bool:
        """Whether it was told to stop, and begins nothing any more."""
        return self._draining.is_set()

    def run_until_idle(self) -> bool:
        """Claim a job and run it, and others beside and after it, until there is none left; False if there was none.

        It returns only once this worker is idle, so that no doorbell is answered by a busy one while an idle one could.
        What a busy one claims has waited for longer than an idle one takes to claim it: see `Claiming`.
        """
        self._preload.wait()
        claimed_any = False
        while not self._draining.is_set():
            self._pulse.due(WORK, ROUND_LIMIT_SECONDS)
            with self._changed:
                changes, running = self._changes, len(self._jobs)
                tried_before = any(job.claim.attempt > 1 for job in self._jobs)
                device_bound = sum(job.stage is not Stage.AFTER_DEVICE for job in self._jobs)
            self._yield_what_waits()
            pause_seconds = BUSY_POLL_SECONDS
            if running < self._settings.jobs_at_once and not (tried_before or self._runs_for_long()):
                try:
                    claim = self._claim(running, device_bound)
                except Unavailable as error:
                    logger.warning("cannot claim, the janitor will ring again", extra={"reason": error.details})
                    claim, pause_seconds = None, OUTAGE_PAUSE_SECONDS
                except Exception:
                    if not running:
                        raise
                    logger.exception("cannot claim beside other jobs")
                    claim, pause_seconds = None, OUTAGE_PAUSE_SECONDS
                if claim is not None:
                    self._begin(claim)
                    if claimed_any:
                        self._take_doorbell()
                    claimed_any = True
                    continue
            if not running:
                return claimed_any
            with self._changed:
                self._changed.wait_for(partial(self._changed_since, changes), pause_seconds)
        with self._changed:
            self._changed.wait_for(lambda: not self._jobs)
        return claimed_any

    def drain(self) -> None:
        """Take no more jobs, and give back uncounted those whose model has not begun.

        The one on the device may finish until the drain limit, then it is given back as well.
        """
        self._draining.set()
        self._preload.stop()
        self._notice()
        threading.Thread(target=self._give_back, name="drain", daemon=True).start()

    def close(self) -> None:
        """End every model host, give back what runs still, and wait for nothing that is away."""
        self._closing.set()
        self._draining.set()
        self._preload.stop()
        self._verdicts.close()
        for job in self._running():
            job.lease.stop(StopReason.DRAINED)
        self._hosts.close()
        with self._changed:
            self._changed.wait_for(lambda: not self._jobs, CLOSE_SECONDS)

    def _yield_what_waits(self) -> None:
        """Give back what has waited for the device for long: an idle worker, which there was none of, may be there now.

        Nothing is claimed beside the job on the device from then on until it is nearly done: see `_runs_for_long`.
        """
        jobs = self._running()
        for job in jobs:
            if job.waits_for_longer_than(self._settings.device_wait_seconds) and job.give_back_unless_on_device(
                StopReason.YIELDED
            ):
                on_device = next((other for other in jobs if other.stage is Stage.ON_DEVICE), None)
                self._misjudged = on_device is not None and on_device is self._long_job
                self._long_job = on_device

    def _runs_for_long(self) -> bool:
        """Whether what has the device has shown that it takes long, and will not be done soon.

        The next job is decoded in time for the end, so that the device does not wait for it.
        """
        job = self._long_job
        if job is None or job.stage is not Stage.ON_DEVICE:
            return False
        return self._misjudged or not job.leaves_device_within(self._settings.device_wait_seconds / 2)

    def _claim(self, running: int, device_bound: int) -> Claim | None:
        if not running:
            return self._claiming.as_idle_worker()
        # The last place is for somebody who waits: batch jobs that took them all would make him wait for two of them.
        batch_places = max(self._settings.jobs_at_once - 1, LEAST_BATCH_JOBS)
        return self._claiming.as_busy_worker(Priority.BATCH if device_bound < batch_places else Priority.INTERACTIVE)

    def _take_doorbell(self) -> None:
        """The one that was rung for a job which needed none; should it be another job's, the janitor rings again."""
        try:
            self._doorbell.take()
        except DoorbellUnavailable as error:
            logger.warning("doorbell not taken", extra={"reason": str(error)})

    def _begin(self, claim: Claim) -> None:
        logger.info("claimed", extra={"job": str(claim.job_id), "model": claim.model_id, "attempt": claim.attempt})
        self._metrics.job_claimed(claim.model_id)
        job = RunningJob(
            claim,
            self._settings,
            self._database,
            self._device,
            before_leaving_device=self._hosts.trim,
            moved=self._notice,
            expected_seconds=self._last_seconds.get(claim.model_id),
        )
        thread = threading.Thread(target=self._run, args=(job,), name=f"job-{claim.job_id}", daemon=True)
        with self._changed:
            self._jobs.append(job)
        if self._draining.is_set():  # since the claim was asked for: `drain` may not have seen this job
            job.give_back_unless_on_device(StopReason.DRAINED)
        try:
            thread.start()
        except RuntimeError:  # this machine has no thread left
            job.lease.stop(StopReason.DRAINED)
            self._tell_stopped(job)
            with self._changed:
                self._jobs.remove(job)
            raise

    def _run(self, job: RunningJob) -> None:
        try:
            with job.lease:
                self._work(job)
        except Exception:
            # Its lease ends with it, and the janitor gives the job to another worker.
            logger.exception("no verdict", extra={"job": str(job.claim.job_id)})
        finally:
            with self._changed:
                self._jobs.remove(job)
            self._notice()

    def _work(self, job: RunningJob) -> None:
        try:
            message, stage_seconds = self._segment(job)
            self._last_seconds[job.claim.model_id] = stage_seconds["model"]
            waits = {"queued": round(job.claim.waited_seconds, 4), "wait": job.waited_seconds}
            self._verdicts.finish(job, message, {**waits, **stage_seconds})
        except Cancelled:
            self._verdicts.stopped(job)
        except AttemptLost as error:
            self._verdicts.lost(job, error.details)
        except (JobError, InvalidModelInput, MalformedMessage, RuntimeUnavailable) as error:
            self._verdicts.failed(job, error)
        except Exception as error:
            logger.exception("unforeseen fault", extra={"job": str(job.claim.job_id)})
            details = error.details if isinstance(error, SegIntError) else f"the worker failed ({error!r})"
            self._verdicts.lost(job, details)

    def _segment(self, job: RunningJob) -> tuple[bytes, dict[str, float]]:
        claim = job.claim
        entry = self._verdicts.through_outage(
            lambda: self._database.run(provenance.entry_to_run, claim, software_version=SOFTWARE_VERSION)
        )
        if entry is None or entry.attachment is None or not entry.runnable:
            raise JobError(f"The model «{claim.model_id}» was disabled or removed after the volume was accepted.")
        run = pipeline.Run(
            hosts=self._hosts,
            time_limit_seconds=self._time_limit_seconds(entry),
            report_percent=job.report_percent,
            note=partial(self._note, claim),
            model_ran=partial(self._metrics.model_ran, claim.model_id),
            host_started=job.host_started,
            on_device=job.on_device,
        )
        spec = model_spec(entry, entry.attachment, self._blobs.model_path)
        return pipeline.segment(self._blobs.input_path(claim.input_file), claim.input_sha256, entry, spec, run)

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

    def _give_back(self) -> None:
        """What draining does beside the main thread, which waits for the jobs to end."""
        for job in self._running():
            if job.give_back_unless_on_device(StopReason.DRAINED):
                self._tell_stopped(job)  # its thread would tell it only once it has decoded
        if self._closing.wait(self._settings.drain_seconds):
            return
        for job in self._running():
            job.lease.stop(StopReason.DRAINED)

    def _tell_stopped(self, job: RunningJob) -> None:
        try:
            self._verdicts.stopped(job)
        except Exception:  # the others have to be told all the same
            logger.exception("not given back", extra={"job": str(job.claim.job_id)})

    def _running(self) -> list[RunningJob]:
        with self._changed:
            return list(self._jobs)

    def _changed_since(self, changes: int) -> bool:
        return self._changes != changes

    def _notice(self) -> None:
        """Have `run_until_idle` look again."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()
