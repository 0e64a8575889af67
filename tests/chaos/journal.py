"""What clients saw: every answer, every refusal, and what must never be seen."""

import threading
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class Wrong(StrEnum):
    """What may be wrong, as the summary counts it."""

    LOST = "lost"
    REPEATED = "repeated"
    STUCK = "stuck"
    LEAKED = "leaked"
    RESULT = "result"
    ANSWER = "answer"
    TIME_LINE = "time line"
    UNEXPLAINED = "unexplained"
    RUNNER = "runner"


@dataclass(frozen=True)
class Violation:
    """Something that must not be, in one sentence."""

    wrong: Wrong
    text: str


@dataclass(frozen=True)
class Unserved:
    """A request that was not served now: no connection, or «try again later». Times count from the epoch."""

    api: str
    what: str
    reason: str
    since: float
    until: float
    status: int | None = None
    """None: there was no answer."""


@dataclass(frozen=True)
class BadDownload:
    """A result that was not what its digest or its volume says."""

    job_id: UUID
    text: str
    since: float
    until: float


class Journal:
    """Thread-safe."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.unserved: list[Unserved] = []
        self.bad_downloads: list[BadDownload] = []
        self.violations: list[Violation] = []
        self.slowest: tuple[float, str] = (0.0, "")
        """In seconds."""
        self._lock = threading.Lock()

    def answered(self, what: str, status: int, seconds: float) -> None:
        with self._lock:
            self.answers[f"{what} {status}"] += 1
            self.slowest = max(self.slowest, (round(seconds, 3), what))

    def not_served(self, unserved: Unserved) -> None:
        with self._lock:
            self.unserved.append(unserved)

    def bad_download(self, bad: BadDownload) -> None:
        with self._lock:
            self.bad_downloads.append(bad)

    def violated(self, wrong: Wrong, text: str) -> None:
        with self._lock:
            self.violations.append(Violation(wrong, text))
