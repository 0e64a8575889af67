"""GET /metrics: what this process has counted, and what it finds of database, Redis and volume when it is asked.

It answers within seconds whatever is away, because that is when it is looked at.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Generic, TypeVar

from anyio import to_thread
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from services.api.metrics import Metrics
from services.core.blobs import Blobs, Room
from services.core.db.queue_figures import KEPT_STATES, QueueFigures, queue_figures
from services.core.db.session import AsyncDatabase
from services.core.errors import DatabaseUnavailable, StorageAway
from services.core.jobs import JobState
from services.core.queue import Doorbell, DoorbellUnavailable

logger = logging.getLogger(__name__)
T = TypeVar("T")

PATIENCE_SECONDS = 2.0
"""For each of the three, all at once: Prometheus gives a scrape ten seconds, and a probe's time-out is often less."""


class MetricsPage:
    """The route."""

    def __init__(self, metrics: Metrics, database: AsyncDatabase, blobs: Blobs, doorbell: Doorbell) -> None:
        self._metrics = metrics
        self._figures = Question(lambda: database.read(queue_figures), "database")
        self._doorbells = Question(lambda: to_thread.run_sync(doorbell.waiting), "redis")
        self._room = Question(lambda: to_thread.run_sync(blobs.room), "volume")

    async def show(self, _: Request) -> Response:
        """Counters of this process, and the surroundings as they are now."""
        (database_up, figures), (redis_up, waiting), (volume_up, room) = await asyncio.gather(
            self._figures.answer(), self._doorbells.answer(), self._room.answer()
        )
        families = [
            _gauge("segint_database_up", "1 when PostgreSQL answers.", database_up),
            _gauge("segint_redis_up", "1 when Redis answers.", redis_up),
            _gauge("segint_volume_up", "1 when the volume is there.", volume_up),
        ]
        if waiting is not None:
            families.append(_gauge("segint_doorbells_waiting", "Doorbells that no worker has fetched yet.", waiting))
        families += _of_room(room) if room else []
        families += self._of_queue(figures) if figures else []
        content = generate_latest(self._metrics.registry) + generate_latest(_Found(families))
        return Response(content, media_type=CONTENT_TYPE_LATEST)

    def _of_queue(self, figures: QueueFigures) -> list[Metric]:
        jobs = GaugeMetricFamily(
            "segint_jobs", "Jobs by state, those that expired left out.", labels=["model", "state"]
        )
        oldest = GaugeMetricFamily(
            "segint_oldest_queued_job_age_seconds", "Age of the job that waits longest.", labels=["model"]
        )
        # In the catalogue's order, so that every process gives the same models a label of their own.
        labels = dict.fromkeys(self._metrics.models.of(model_id) for model_id in figures.models)
        counts: dict[tuple[str, JobState], int] = {(label, state): 0 for label in labels for state in KEPT_STATES}
        ages = dict.fromkeys(labels, 0.0)
        for (model_id, state), count in figures.jobs.items():
            counts[self._metrics.models.of(model_id), state] += count
        for model_id, seconds in figures.oldest_queued_seconds.items():
            label = self._metrics.models.of(model_id)
            ages[label] = max(ages[label], seconds)
        for (label, state), count in counts.items():
            jobs.add_metric([label, state.value], count)
        for label, seconds in ages.items():
            oldest.add_metric([label], seconds)
            self._metrics.expect_failures(label)
        beyond = GaugeMetricFamily(
            "segint_jobs_out_of_reach", "Ready jobs that no worker that is there could claim.", labels=["model"]
        )
        unreached = dict.fromkeys(labels, 0)
        for model_id, count in figures.out_of_reach.items():
            unreached[self._metrics.models.of(model_id)] += count
        for label, count in unreached.items():
            beyond.add_metric([label], count)
        ready = _gauge("segint_jobs_ready", "Queued jobs that a worker could claim now.", figures.ready)
        workers = GaugeMetricFamily("segint_workers", "Workers that were heard of lately.", labels=["pool"])
        waiting = GaugeMetricFamily(
            "segint_pool_waiting_jobs", "Queued jobs that a pool could claim now.", labels=["pool"]
        )
        for pool in figures.pools:
            workers.add_metric([pool.name], pool.workers)
            waiting.add_metric([pool.name], pool.waiting)
        return [jobs, oldest, ready, beyond, workers, waiting]


class Question(Generic[T]):
    """Something asked of what may not answer. One is under way at most: a volume that hangs holds one thread."""

    def __init__(self, ask: Callable[[], Awaitable[T]], what: str) -> None:
        self._ask = ask
        self._what = what
        self._under_way: asyncio.Future[T] | None = None
        self._asked_at = 0.0

    async def answer(self) -> tuple[bool, T | None]:
        """Whether there was an answer in time, and it. Who asks at the same moment, as a second Prometheus does,
        shares the question; one asked longer ago than anybody's patience hangs, and its answer would be out of date.
        """
        task = self._under_way
        if task is None or task.done():
            task = self._under_way = asyncio.ensure_future(self._ask())
            task.add_done_callback(self._look_at)
            self._asked_at = time.monotonic()
        elif time.monotonic() - self._asked_at > PATIENCE_SECONDS:
            return False, None
        done, _ = await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
        if not done or task.cancelled() or task.exception() is not None:
            return False, None
        return True, task.result()

    def _look_at(self, task: "asyncio.Future[T]") -> None:
        """A fault that nobody foresaw is in the log; the scrape answers all the same."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, DatabaseUnavailable | DoorbellUnavailable | StorageAway):
            logger.error("metrics: cannot ask", extra={"what": self._what}, exc_info=error)


class _Found(Collector):
    """Families that are known already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


def _of_room(room: Room) -> list[Metric]:
    return [
        _gauge("segint_volume_free_bytes", "Room on the volume that this process may still fill.", room.free_bytes),
        _gauge("segint_volume_size_bytes", "How large the volume is.", room.total_bytes),
    ]
