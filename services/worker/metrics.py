"""Prometheus metrics of one worker, and the port that they are served on."""

import logging
from collections.abc import Callable, Iterator, Mapping
from threading import Lock
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.worker.memory import MemoryUse

logger = logging.getLogger(__name__)

SECONDS_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
MOST_MODELS = 200
"""Model identifiers that become labels. Further ones are counted together: every label costs memory for ever."""
OTHER_MODELS = "other"


class HttpServer(Protocol):
    """What `start_http_server` starts."""

    def shutdown(self) -> None: ...
    def server_close(self) -> None: ...


class WorkerMetrics:
    """One registry for each worker, so that tests may make several. From any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._models: set[str] = set()
        self._lock = Lock()
        self._server: HttpServer | None = None
        self._hits = self._model_counter("hits", "Times a model was found loaded.")
        self._loads = self._model_counter("loads", "Models loaded.")
        self._evictions = self._model_counter("evictions", "Models ended to make room, or because their files changed.")
        self._load_seconds = Histogram(
            "segint_model_load_seconds",
            "From starting a model host to its model being ready.",
            ["model"],
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self._stage_seconds = Histogram(
            "segint_stage_seconds",
            "What each stage of a job that succeeded took.",
            ["model", "stage"],
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self._jobs = Counter(
            "segint_worker_jobs", "Jobs that this worker is done with.", ["outcome"], registry=self.registry
        )

    def _model_counter(self, name: str, documentation: str) -> Counter:
        return Counter(f"segint_model_{name}", documentation, ["model"], registry=self.registry)

    def model_found_warm(self, model_id: str) -> None:
        self._hits.labels(self._label(model_id)).inc()

    def model_loaded(self, model_id: str, seconds: float) -> None:
        label = self._label(model_id)
        self._loads.labels(label).inc()
        self._load_seconds.labels(label).observe(seconds)

    def model_evicted(self, model_id: str) -> None:
        self._evictions.labels(self._label(model_id)).inc()

    def job_succeeded(self, model_id: str, stage_seconds: Mapping[str, float]) -> None:
        """With what its stages took."""
        label = self._label(model_id)
        for stage, seconds in stage_seconds.items():
            self._stage_seconds.labels(label, stage).observe(seconds)
        self.job_ended("succeeded")

    def job_ended(self, outcome: str) -> None:
        self._jobs.labels(outcome).inc()

    def watch_warm_models(self, read: Callable[[], Mapping[str, MemoryUse]]) -> None:
        """Show what `read` gives, by model identifier, whenever the metrics are asked for."""
        self.registry.register(_WarmModels(read, self._label))

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

    def _label(self, model_id: str) -> str:
        with self._lock:
            if model_id not in self._models:
                if len(self._models) >= MOST_MODELS:
                    return OTHER_MODELS
                self._models.add(model_id)
        return model_id


class _WarmModels(Collector):
    def __init__(self, read: Callable[[], Mapping[str, MemoryUse]], label: Callable[[str], str]) -> None:
        self._read = read
        self._label = label

    def collect(self) -> Iterator[Metric]:
        count = GaugeMetricFamily("segint_warm_models", "Models that are loaded.")
        taken = GaugeMetricFamily(
            "segint_warm_model_memory_bytes", "What each loaded model takes.", labels=["model", "memory"]
        )
        warm = self._read()
        count.add_metric([], len(warm))
        by_label: dict[str, MemoryUse] = {}
        for model_id, use in warm.items():
            label = self._label(model_id)
            by_label[label] = by_label.get(label, MemoryUse()) + use
        for label, use in by_label.items():
            taken.add_metric([label, "host"], use.host_bytes)
            taken.add_metric([label, "device"], use.device_bytes)
        yield count
        yield taken
