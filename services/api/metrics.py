"""Prometheus metrics of the API, and of the queue as PostgreSQL sees it. Labels are bounded: routes, not paths."""

import time

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.core.db import jobs as job_rows
from services.core.db.session import AsyncDatabase
from services.core.errors import DatabaseUnavailable

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
UNROUTED = "none"


class Metrics:
    """One registry per application, so that tests may make several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "segint_http_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.latency = Histogram(
            "segint_http_request_duration_seconds",
            "From the request's head to the answer's last byte.",
            ["route"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.received = Counter("segint_http_received_bytes", "Request bodies read.", registry=self.registry)
        self.sent = Counter("segint_http_sent_bytes", "Answer bodies sent.", registry=self.registry)
        self.jobs = Gauge("segint_jobs", "Segmentation jobs by state.", ["state"], registry=self.registry)
        self.oldest = Gauge(
            "segint_oldest_queued_job_age_seconds", "Age of the job that waits longest.", registry=self.registry
        )
        self.database_up = Gauge("segint_database_up", "1 when PostgreSQL answers.", registry=self.registry)


class MetricsRoute:
    """GET /metrics."""

    def __init__(self, metrics: Metrics, database: AsyncDatabase) -> None:
        self._metrics = metrics
        self._database = database

    async def show(self, _: Request) -> Response:
        """Counters of this process, and the queue's state read now."""
        try:
            counts = await self._database.run(job_rows.count_by_state)
            self._metrics.oldest.set(await self._database.run(job_rows.oldest_queued_seconds))
            for state, count in counts.items():
                self._metrics.jobs.labels(state.value).set(count)
            self._metrics.database_up.set(1)
        except DatabaseUnavailable:
            self._metrics.database_up.set(0)
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)


class MeasureRequests:
    """ASGI middleware that counts and times."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def counted_receive() -> Message:
            message = await receive()
            self._metrics.received.inc(len(message.get("body", b"")))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            self._metrics.sent.inc(len(message.get("body", b"")))
            await send(message)

        try:
            await self._app(scope, counted_receive, counted_send)
        finally:
            route = scope.get("segint.route", UNROUTED)
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "PUT", "DELETE") else "other"
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.latency.labels(route).observe(time.perf_counter() - started)
