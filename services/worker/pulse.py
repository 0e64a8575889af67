"""Signs of life of a worker: whether each of its loops still turns, told to a file that a probe reads.

A loop says when its next sign is due. The file is written, by a thread of its own, only while none is overdue: a
worker whose process lives but whose loop hangs stops writing it, as does one that is frozen. What may be away for a
while, as Redis, PostgreSQL and a model that takes long, never makes a loop overdue: starting the worker again would
not bring them back.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)

WORK = "work"
"""The loop that claims jobs and watches over them, and tries models between them."""
ROUND_LIMIT_SECONDS = 120.0
"""Of its rounds, each a fraction of a second long; a database that leaves every statement unanswered holds one up for
about half of this."""
DOORBELLS = "doorbells"
"""The loop that listens for doorbells."""
LISTEN_LIMIT_SECONDS = 60.0
"""It looks many times a second; where Redis is away, it tries again every few seconds."""

WRITE_SECONDS = 5.0
"""A small part of what a probe allows between two signs."""


class Pulse:
    """When each loop has to give its next sign. Thread-safe; loops have names."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: dict[str, float] = {}

    def due(self, loop: str, within_seconds: float) -> None:
        """A sign of life of that loop, and by when the next one comes."""
        with self._lock:
            self._due[loop] = time.monotonic() + within_seconds

    def rest(self, loop: str) -> None:
        """No sign is to be expected of that loop until its next `due`."""
        with self._lock:
            self._due.pop(loop, None)

    def overdue(self) -> list[str]:
        """Names of the loops that should have given a sign."""
        now = time.monotonic()
        with self._lock:
            return sorted(loop for loop, due in self._due.items() if due < now)


class HeartbeatFile:
    """Writes the file at `path` while `pulse` is whole and `threads_live` says yes, first once `until_ready` returns.

    The file holds this machine's monotonic clock in seconds: another clock may be set while a worker runs.
    """

    def __init__(
        self, path: Path, pulse: Pulse, *, until_ready: Callable[[], None], threads_live: Callable[[], bool]
    ) -> None:
        self._path = path
        self._pulse = pulse
        self._until_ready = until_ready
        self._threads_live = threads_live
        self._told: list[str] = []
        self._ending = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._write_again_and_again, name="heartbeat-file", daemon=True)

    def start(self) -> None:
        """Begin. Returns at once.

        Raises:
            SystemExit: the file cannot be written there.
        """
        try:
            self._write_to(self._path.with_name(self._path.name + ".new"))
        except OSError as error:
            raise SystemExit(
                f"SEGINT_HEARTBEAT_FILE is {self._path}, which cannot be written ({error.strerror}); name a file in a "
                "folder that this user may write to."
            ) from error
        self._thread.start()

    def let_end(self) -> None:
        """The worker was told to stop, which has a limit of its own: its loops end, and that is no fault."""
        self._ending.set()

    def stop(self) -> None:
        """Write no more. Returns at once."""
        self._stopping.set()

    def _write_again_and_again(self) -> None:
        self._until_ready()
        while True:
            try:
                self._write_if_healthy()
            except OSError as error:  # the probe will notice if it stays so
                logger.warning("no heartbeat written", extra={"reason": str(error)})
            if self._stopping.wait(WRITE_SECONDS):
                return

    def _write_if_healthy(self) -> None:
        hanging = [] if self._ending.is_set() else self._hanging()
        if hanging != self._told:
            self._told = hanging
            logger.log(logging.ERROR if hanging else logging.INFO, "hanging: %s", ", ".join(hanging) or "nothing more")
        if not hanging:
            new = self._path.with_name(self._path.name + ".new")
            self._write_to(new)
            new.replace(self._path)  # whole, or the one before

    def _hanging(self) -> list[str]:
        return self._pulse.overdue() if self._threads_live() else ["threads that ended"]

    @staticmethod
    def _write_to(path: Path) -> None:
        path.write_text(f"{time.monotonic():.3f}\n", encoding="ascii")
