"""Clients that load a server, and a prober that measures it meanwhile.

All in threads of one process, and light: an upload is one blocking send from a buffer that all clients share, which
needs neither the interpreter nor a copy; a result is compared as bytes with one that was checked before.
"""

import http.client
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit
from uuid import UUID

from services.core.errors import MalformedMessage
from services.core.jobs import COMPLETE_PERCENT
from services.core.wire.segmentations import Progress, decode_progress, decode_task

PROTOBUF = "application/x-protobuf"
POLL_SECONDS = 0.5
PROBERS = 10
ANSWER_LIMIT_SECONDS = 120.0
SUBMIT, PROGRESS, RESULT = "submit", "progress", "result"


@dataclass
class Tally:
    """What one client saw. Answers are counted by route and status, durations are seconds."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """All that should not be: anything but 200, and 503 that says when to try again."""
    polls: list[float] = field(default_factory=list)
    uploads: list[float] = field(default_factory=list)
    """Of accepted uploads only."""
    turnarounds: list[float] = field(default_factory=list)
    """From the first byte of the accepted upload to the last byte of the result."""
    finished_at: list[float] = field(default_factory=list)
    """On the monotonic clock."""

    def add(self, other: "Tally") -> None:
        """Take in what another client saw."""
        self.answers += other.answers
        self.errors += other.errors
        for name in ("polls", "uploads", "turnarounds", "finished_at"):
            getattr(self, name).extend(getattr(other, name))


@dataclass(frozen=True)
class Load:
    """What every client sends and expects."""

    url: str
    model_id: str
    body: memoryview
    expected_result: bytes
    """The whole answer: the same volume gives the same masks."""

    @property
    def path(self) -> str:
        """Where segmentations of the model are."""
        return f"/api/v2/Model/{quote(self.model_id, safe='')}/segmentation"

    def connection(self) -> http.client.HTTPConnection:
        """One that stays open between requests where the server lets it."""
        address = urlsplit(self.url)
        return http.client.HTTPConnection(address.hostname or "", address.port, timeout=ANSWER_LIMIT_SECONDS)


class Client(threading.Thread):
    """Submits, waits, fetches, and begins again until told to stop; then it finishes what it has begun."""

    def __init__(self, load: Load, stop: threading.Event, newest: "Newest") -> None:
        super().__init__()
        self.tally = Tally()
        self._load = load
        self._stop_asked = stop
        self._newest = newest
        self._connection = load.connection()

    def run(self) -> None:
        """One segmentation after the other. A fault is counted, and the next one begins after a pause."""
        while not self._stop_asked.is_set():
            try:
                self._segment()
            except (OSError, http.client.HTTPException, MalformedMessage, _Wrong) as error:
                self.tally.errors[f"{type(error).__name__}: {error}"] += 1
                self._connection.close()
                self._stop_asked.wait(POLL_SECONDS)
        self._connection.close()

    def _segment(self) -> None:
        started = time.monotonic()
        status, answer, retry_after = self._ask(SUBMIT, "POST", self._load.path)
        if status == 503 and retry_after is not None:
            self._stop_asked.wait(float(retry_after))
            return
        job_id = decode_task(self._whole(status, answer)).segmentation_id
        self.tally.uploads.append(time.monotonic() - started)
        self._newest.job_id = job_id
        while self._progress(job_id).percent < COMPLETE_PERCENT:
            time.sleep(POLL_SECONDS)
        status, answer, _ = self._ask(RESULT, "GET", f"{self._load.path}/{job_id}/result")
        if self._whole(status, answer) != self._load.expected_result:
            raise _Wrong(f"the masks of {job_id} are not those of its volume")
        self.tally.finished_at.append(time.monotonic())
        self.tally.turnarounds.append(time.monotonic() - started)

    def _progress(self, job_id: UUID) -> Progress:
        asked = time.monotonic()
        status, answer, _ = self._ask(PROGRESS, "GET", f"{self._load.path}/{job_id}")
        self.tally.polls.append(time.monotonic() - asked)
        progress = decode_progress(self._whole(status, answer))
        if progress.error_text:
            raise _Wrong(f"a segmentation failed: {progress.error_text}")
        return progress

    def _ask(self, route: str, method: str, path: str) -> tuple[int, bytes, str | None]:
        headers = {"Accept": PROTOBUF}
        if method == "POST":
            self._connection.request(method, path, self._load.body, headers | {"Content-Type": PROTOBUF})
        else:
            self._connection.request(method, path, headers=headers)
        with self._connection.getresponse() as response:
            answer = response.read()
        self.tally.answers[route, response.status] += 1
        return response.status, answer, response.headers["Retry-After"]

    def _whole(self, status: int, answer: bytes) -> bytes:
        if status != 200:
            raise _Wrong(f"{status} {answer[:200]!r}")
        return answer


class Prober(threading.Thread):
    """Asks for the progress of the newest job at fixed instants, whatever the answers take.

    A poll is measured from the instant it was due: what keeps this thread from asking in time counts too.
    """

    def __init__(
        self, load: Load, stop: threading.Event, newest: "Newest", *, first_due: float, pause_seconds: float
    ) -> None:
        """`first_due` is on the monotonic clock."""
        super().__init__()
        self.tally = Tally()
        self._load = load
        self._stop_asked = stop
        self._newest = newest
        self._due = first_due
        self._pause_seconds = pause_seconds

    def run(self) -> None:
        """Poll until told to stop."""
        connection = self._load.connection()
        while not self._stop_asked.wait(max(0.0, self._due - time.monotonic())):
            try:
                path = f"{self._load.path}/{self._newest.job_id}"
                connection.request("GET", path, headers={"Accept": PROTOBUF})
                with connection.getresponse() as response:
                    response.read()
                self.tally.answers["probe", response.status] += 1
                if response.status != 200:
                    self.tally.errors[f"probe: {response.status}"] += 1
            except (OSError, http.client.HTTPException) as error:
                self.tally.errors[f"probe: {type(error).__name__}: {error}"] += 1
                connection.close()
            self.tally.polls.append(time.monotonic() - self._due)
            self._due += self._pause_seconds
        connection.close()


def start_probers(load: Load, stop: threading.Event, newest: "Newest", polls_per_second: float) -> list[Prober]:
    """Probers that take turns: a slow answer to one does not delay the polls of the others."""
    now = time.monotonic()
    probers = [
        Prober(
            load,
            stop,
            newest,
            first_due=now + turn / polls_per_second,
            pause_seconds=PROBERS / polls_per_second,
        )
        for turn in range(PROBERS)
    ]
    for prober in probers:
        prober.start()
    return probers


@dataclass
class Newest:
    """The job that was accepted last; what the prober asks for."""

    job_id: UUID


class _Wrong(Exception):
    """An answer that should not be."""
