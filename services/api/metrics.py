"""What one API process counts for Prometheus. Labels are bounded: routes, not paths, and models of the catalogue."""

import time
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.core.jobs import JobErrorCode
from services.core.model_labels import ModelLabels

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
UNROUTED = "none"
CONSOLE = "/admin"
FAILURE_CODES = tuple(code for code in JobErrorCode if code is not JobErrorCode.NONE)


class Metrics:
    """One registry per application, so that tests may make several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.models = ModelLabels()
        ProcessCollector(registry=self.registry)
        build = Gauge("segint_build_info", "Which SegInt runs.", ["service", "version"], registry=self.registry)
        build.labels("api", version("segint")).set(1)
        self.requests = Counter(
            "segint_http_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.latency = Histogram(
            "segint_http_request_duration_seconds",
            "From the request's head to the answer's last byte.",
            ["route", "status"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.received = Counter("segint_http_received_bytes", "Request bodies read.", ["route"], registry=self.registry)
        self.sent = Counter("segint_http_sent_bytes", "Answer bodies sent.", ["route"], registry=self.registry)
        self.janitor = JanitorMetrics(self.registry)
        self._failures = Counter(
            "segint_job_failures",
            "Jobs that this process has failed, by the wire's error code.",
            ["model", "code"],
            registry=self.registry,
        )

    def job_failed(self, model_id: str, code: JobErrorCode = JobErrorCode.INTERNAL) -> None:
        """A verdict of this process, which is not a worker's: a result or an upload is gone, or the attempts are."""
        self._failures.labels(self.models.of(model_id), code.name.lower()).inc()

    def expect_failures(self, model_label: str) -> None:
        """Show a model's failures from 0 on: of a series that begins at 1, Prometheus sees no increase."""
        for code in FAILURE_CODES:
            self._failures.labels(model_label, code.name.lower())


class JanitorMetrics:
    """What the janitor did in one process. Where there are several, one leads, so their sums are the deployment's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.rounds = Counter("segint_janitor_rounds", "Rounds ended, leading or not.", ["loop"], registry=registry)
        self.failed_rounds = Counter("segint_janitor_failed_rounds", "Rounds broken off.", ["loop"], registry=registry)
        self.leases = Counter(
            "segint_leases_expired", "Jobs taken back from silent workers.", ["outcome"], registry=registry
        )
        self.held_up = Gauge(
            "segint_leases_held_up", "Leases that a stopped backend of PostgreSQL holds up.", registry=registry
        )
        self.doorbells = Counter("segint_janitor_doorbells_rung", "Doorbells that were missing.", registry=registry)
        self.expired = Counter("segint_janitor_jobs_expired", "Jobs past their retention.", registry=registry)
        self.files = Counter("segint_janitor_files_deleted", "Files deleted.", ["kind"], registry=registry)
        self.file_faults = Counter(
            "segint_janitor_file_faults", "Files that could not be deleted; each is tried again.", registry=registry
        )
        self.orphans = Gauge(
            "segint_orphans", "Orphans seen, and not yet believed or settled.", ["kind"], registry=registry
        )
        for loop in ("queue", "volume"):
            self.rounds.labels(loop)
            self.failed_rounds.labels(loop)
        for outcome in ("queued", "failed", "cancelled"):
            self.leases.labels(outcome)
        for kind in ("input", "result", "stray"):
            self.files.labels(kind)
        for kind in ("file", "row"):
            self.orphans.labels(kind)


class MeasureRequests:
    """ASGI middleware that counts and times."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        scope["segint.route"] = CONSOLE if path == CONSOLE or path.startswith(f"{CONSOLE}/") else UNROUTED
        started = time.perf_counter()
        status = 500

        async def counted_receive() -> Message:
            message = await receive()
            if body := message.get("body"):
                self._metrics.received.labels(scope["segint.route"]).inc(len(body))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            if body := message.get("body"):
                self._metrics.sent.labels(scope["segint.route"]).inc(len(body))
            await send(message)

        try:
            await self._app(scope, counted_receive, counted_send)
        finally:
            route = scope["segint.route"]
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "PUT", "DELETE") else "other"
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.latency.labels(route, str(status)).observe(time.perf_counter() - started)
