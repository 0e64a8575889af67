"""The composition root of the worker, started by `python -m services.worker`.

Dramatiq calls `create_broker` in each worker process after its fork; connections are made after that, on boot.
"""

import os
import socket
import tempfile
from functools import partial
from pathlib import Path

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Middleware
from prometheus_client import disable_created_metrics

from services.core import logs
from services.core.blobs import Blobs
from services.core.db.session import ANSWER_TIMEOUT_SECONDS, Database
from services.core.pools import Pool
from services.core.queue import WORKER_SOCKET_TIMEOUT_SECONDS, Doorbell, connect, make_broker
from services.core.settings import Settings, settings_or_exit
from services.worker.actors import declare_actor
from services.worker.hosts import ModelHosts
from services.worker.job_runner import JobRunner
from services.worker.listening import ListeningBroker
from services.worker.memory import MemoryUse
from services.worker.metrics import WorkerMetrics
from services.worker.model_checks import ModelChecks
from services.worker.pool_runtimes import within_what_is_installed
from services.worker.presence import Presence
from services.worker.pulse import DOORBELLS, LISTEN_LIMIT_SECONDS, HeartbeatFile, Pulse
from services.worker.work import Lookout, Work

ANSWERS_PER_LEASE = 3
"""A heartbeat that the database leaves unanswered must end early enough for another one to save the lease."""

CONNECTIONS_PER_JOB = 2
"""One for its heartbeat, one for its verdict; the claims use what the pool may have above its size."""


VERDICT_SECONDS = 5.0
"""After the drain limit, for the job on the device to be given back."""


def create_broker() -> RedisBroker:
    """The broker with the one actor; becomes Dramatiq's current one, as its command line asks."""
    settings = settings_or_exit()
    logs.configure(settings.log_level)
    promised = settings.pool
    settings = within_what_is_installed(settings)
    # Half of all series, and `process_start_time_seconds` tells as much.
    disable_created_metrics()  # type: ignore[no-untyped-call] # untyped there
    metrics = WorkerMetrics(settings.pool_name)
    pulse = Pulse()
    hosts = make_hosts(settings, metrics)
    runner = make_runner(settings, hosts, metrics, pulse)
    work = Work(runner, make_checks(settings, promised), pulse)
    lookout = None if settings.pool.takes_every_model else Lookout(work)
    client = connect(settings.redis_url, socket_timeout_seconds=WORKER_SOCKET_TIMEOUT_SECONDS)
    life = Life(settings, runner, make_presence(settings, hosts), metrics, lookout, pulse)
    listening = partial(ListeningBroker, looks=partial(pulse.due, DOORBELLS, LISTEN_LIMIT_SECONDS))
    broker = make_broker(client, settings.redis_namespace, [life], listening)
    declare_actor(broker, work)
    dramatiq.set_broker(broker)
    return broker


def make_hosts(settings: Settings, metrics: WorkerMetrics) -> ModelHosts:
    """The worker's model hosts."""
    return ModelHosts(
        capacity=settings.warm_models,
        load_time_limit_seconds=settings.model_load_limit_seconds,
        scratch_limit_bytes=settings.model_scratch_bytes,
        scratch_root=scratch_root(),
        memory_limit_bytes=settings.model_memory_bytes,
        budget=MemoryUse(settings.warm_memory_bytes, settings.warm_device_memory_bytes),
        pinned=settings.pinned_models,
        metrics=metrics,
    )


def make_runner(settings: Settings, hosts: ModelHosts, metrics: WorkerMetrics, pulse: Pulse) -> JobRunner:
    """A job runner with its own connections."""
    return JobRunner(
        settings,
        Database(
            settings.database_url,
            # A heartbeat must not wait until another job's verdict gives a connection back.
            pool_size=CONNECTIONS_PER_JOB * settings.jobs_at_once,
            answer_timeout_seconds=min(settings.lease_seconds / ANSWERS_PER_LEASE, ANSWER_TIMEOUT_SECONDS),
        ),
        Blobs(settings.volume_dir),
        hosts,
        Doorbell(settings.redis_url, settings.redis_namespace),
        worker=worker_name(),
        metrics=metrics,
        pulse=pulse,
    )


def make_presence(settings: Settings, hosts: ModelHosts) -> Presence:
    """What tells that this worker is there, with a connection of its own."""
    presence = Presence(Database(settings.database_url, pool_size=1), worker_name(), settings.pool, hosts.loaded)
    hosts.tell_changes(presence.notice)
    return presence


def make_checks(settings: Settings, promised: Pool) -> ModelChecks:
    """What tries models for the console, with its own connections."""
    limit_seconds = float(max(settings.model_load_limit_seconds, settings.model_time_limit_seconds))
    database = Database(settings.database_url, pool_size=1)
    return ModelChecks(database, Blobs(settings.volume_dir), worker_name(), limit_seconds, settings.pool, promised)


def worker_name() -> str:
    """What this process is called: unlike any other that lives."""
    return f"{socket.gethostname()}:{os.getpid()}"


def scratch_root() -> Path:
    """The folder below which model hosts write, in the temporary folder but of this user alone.

    Raises:
        SystemExit: somebody else made it first.
    """
    root = Path(tempfile.gettempdir()) / f"segint-scratch-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    if root.is_symlink() or root.stat().st_uid != os.getuid():
        raise SystemExit(f"{root} belongs to somebody else; remove it, or set TMPDIR to a folder of this user.")
    return root


class Life(Middleware):
    """The worker's beginning and end: preloads and metrics; no more claims once it is told to stop, and no hosts."""

    def __init__(
        self,
        settings: Settings,
        runner: JobRunner,
        presence: Presence,
        metrics: WorkerMetrics,
        lookout: Lookout | None,
        pulse: Pulse,
    ) -> None:
        self._metrics_port = settings.worker_metrics_port
        self._drain_seconds = settings.drain_seconds
        self._runner = runner
        self._presence = presence
        self._metrics = metrics
        self._lookout = lookout
        self._pulse = pulse
        self._heartbeat_path = Path(settings.heartbeat_file) if settings.heartbeat_file else None
        self._heartbeat: HeartbeatFile | None = None

    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        """It listens for doorbells."""
        if self._metrics_port:
            self._metrics.serve(self._metrics_port)
        self._presence.start()
        self._runner.start()
        if self._lookout is not None:
            self._lookout.start()
        if self._heartbeat_path is not None:
            self._heartbeat = HeartbeatFile(
                self._heartbeat_path,
                self._pulse,
                until_ready=self._runner.until_ready,
                threads_live=partial(_threads_live, worker),
            )
            self._heartbeat.start()

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        """SIGTERM has come; the job on the device has until the drain limit."""
        if self._heartbeat is not None:
            self._heartbeat.let_end()
        if self._lookout is not None:
            self._lookout.stop()
        self._runner.drain()

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        """Nothing that Dramatiq knows of runs any more."""
        if self._lookout is not None:
            self._lookout.join(self._drain_seconds + VERDICT_SECONDS)
        self._runner.close()
        self._presence.close()
        self._metrics.close()
        if self._heartbeat is not None:
            self._heartbeat.stop()


def _threads_live(worker: dramatiq.Worker) -> bool:
    """Whether what Dramatiq started is there still: one that answers doorbells, and one that listens for them."""
    return all(thread.is_alive() for thread in (*worker.workers, *worker.consumers.values()))
