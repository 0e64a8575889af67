"""Prometheus metrics of one worker, and the port that they are served on."""

import logging
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.core.jobs import JobErrorCode
from services.core.model_labels import ModelLabels
from services.worker.gpu_metrics import GpuMetrics
from services.worker.memory import MemoryUse

logger = logging.getLogger(__name__)

SECONDS_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
DEFAULT_POOL = "default"
OUTCOMES = ("succeeded", "failed", "lost", "released", "cancelled", "fenced")
FAILURE_CODES = tuple(code for code in JobErrorCode if code is not JobErrorCode.NONE)


class HttpServer(Protocol):
    """What `start_http_server` starts."""

    def shutdown(self) -> None: ...
    def server_close(self) -> None: ...


class WorkerMetrics:
    """One registry for each worker, so that tests may make several. From any thread."""

    def __init__(self, pool: str = DEFAULT_POOL) -> None:
        """`pool` is a label of everything that is the worker's own."""
        self.registry = CollectorRegistry()
        self._pool = pool
        self._models = ModelLabels()
        self._server: HttpServer | None = None
        ProcessCollector(registry=self.registry)
        self.registry.register(GpuMetrics(pool))
        build = Gauge("segint_build_info", "Which SegInt runs.", ["service", "version", "pool"], registry=self.registry)
        build.labels("worker", version("segint"), pool).set(1)
        self._hits = self._counter("model_hits", "Times a model was found loaded.", "model")
        self._loads = self._counter("model_loads", "Models loaded.", "model")
        self._evictions = self._counter(
            "model_evictions", "Models ended to make room, or because their files changed.", "model"
        )
        self._load_seconds = self._histogram(
            "model_load_seconds", "From starting a model host to its model being ready.", "model"
        )
        self._stage_seconds = self._histogram(
            "stage_seconds", "What each stage of a job that succeeded took.", "model", "stage"
        )
        self._model_stage_seconds = self._histogram(
            "model_stage_seconds",
            "What parts of the stage `model` took, of runs that ended well.",
            "model",
            "stage",
        )
        self._attempts = self._counter("attempts", "Claims of this worker, each of which is an attempt.", "model")
        self._jobs = self._counter("worker_jobs", "Attempts that this worker is done with.", "model", "outcome")
        # As the API's janitor counts its own: no pool.
        self._failures = Counter(
            "segint_job_failures",
            "Jobs that this process has failed, by the wire's error code.",
            ["model", "code"],
            registry=self.registry,
        )

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"segint_{name}", documentation, ["pool", *labels], registry=self.registry)

    def _histogram(self, name: str, documentation: str, *labels: str) -> Histogram:
        return Histogram(
            f"segint_{name}", documentation, ["pool", *labels], buckets=SECONDS_BUCKETS, registry=self.registry
        )

    def model_found_warm(self, model_id: str) -> None:
        self._hits.labels(self._pool, self._models.of(model_id)).inc()

    def model_loaded(self, model_id: str, seconds: float) -> None:
        label = self._models.of(model_id)
        self._loads.labels(self._pool, label).inc()
        self._load_seconds.labels(self._pool, label).observe(seconds)

    def model_evicted(self, model_id: str) -> None:
        self._evictions.labels(self._pool, self._models.of(model_id)).inc()

    def model_ran(self, model_id: str, stage_seconds: Mapping[str, float]) -> None:
        """A run ended well, and its host tells what its parts took."""
        label = self._models.of(model_id)
        for stage, seconds in stage_seconds.items():
            self._model_stage_seconds.labels(self._pool, label, stage).observe(seconds)

    def job_claimed(self, model_id: str) -> None:
        """An attempt begins. How it may end is shown from 0 on: of a series that begins at 1, Prometheus sees no
        increase."""
        label = self._models.of(model_id)
        self._attempts.labels(self._pool, label).inc()
        for outcome in OUTCOMES:
            self._jobs.labels(self._pool, label, outcome)
        for code in FAILURE_CODES:
            self._failures.labels(label, code.name.lower())

    def job_succeeded(self, model_id: str, stage_seconds: Mapping[str, float]) -> None:
        """With what its stages took."""
        label = self._models.of(model_id)
        for stage, seconds in stage_seconds.items():
            self._stage_seconds.labels(self._pool, label, stage).observe(seconds)
        self.job_ended(model_id, "succeeded")

    def job_failed(self, model_id: str, code: JobErrorCode) -> None:
        """Whatever the attempt's outcome was called, the job is over."""
        self._failures.labels(self._models.of(model_id), code.name.lower()).inc()

    def job_ended(self, model_id: str, outcome: str) -> None:
        """One of `OUTCOMES`."""
        self._jobs.labels(self._pool, self._models.of(model_id), outcome).inc()

    def watch_jobs_in_hand(self, read: Callable[[], int]) -> None:
        """Show what `read` gives whenever the metrics are asked for."""
        gauge = Gauge(
            "segint_worker_jobs_in_hand", "Jobs that this worker has claimed.", ["pool"], registry=self.registry
        )
        gauge.labels(self._pool).set_function(read)

    def watch_warm_models(self, read: Callable[[], Mapping[str, MemoryUse]]) -> None:
        """Show what `read` gives, by model identifier, whenever the metrics are asked for."""
        self.registry.register(_WarmModels(read, self._pool, self._models))

    def serve(self, port: int) -> None:
        """Answer GET /metrics on every address of this machine, in a thread, until `close`.

        A port that is taken is a warning: a worker is there for jobs, and two of them may share a machine.
        """
        try:
            self._server, _ = start_http_server(port, registry=self.registry)
        except OSError as error:
            logger.warning("no metrics: port %d cannot be listened on", port, extra={"reason": str(error)})

    def close(self) -> None:
        """Stop answering. Closing twice is allowed."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


class _WarmModels(Collector):
    def __init__(self, read: Callable[[], Mapping[str, MemoryUse]], pool: str, models: ModelLabels) -> None:
        self._read = read
        self._pool = pool
        self._models = models

    def collect(self) -> Iterator[Metric]:
        count = GaugeMetricFamily("segint_warm_models", "Models that are loaded.", labels=["pool"])
        taken = GaugeMetricFamily(
            "segint_warm_model_memory_bytes", "What each loaded model takes.", labels=["pool", "model", "memory"]
        )
        warm = self._read()
        count.add_metric([self._pool], len(warm))
        by_label: dict[str, MemoryUse] = {}
        for model_id, use in warm.items():
            label = self._models.of(model_id)
            by_label[label] = by_label.get(label, MemoryUse()) + use
        for label, use in by_label.items():
            taken.add_metric([self._pool, label, "host"], use.host_bytes)
            taken.add_metric([self._pool, label, "device"], use.device_bytes)
        yield count
        yield taken
