"""Starts again whatever ends, as a container platform does, and notes every end."""

import socket
import threading
import time
from dataclasses import dataclass
from typing import Self

from services.client.local import children
from tests.deployment import Deployment

LOOK_SECONDS = 0.05
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.3, 3.0
"""Before a start; doubled each time a process ends soon after it."""
SOON_SECONDS = 5.0
CONNECT_SECONDS = 0.2


@dataclass(frozen=True)
class Ending:
    """A process that ended. `at` counts from the epoch."""

    name: str
    pid: int
    at: float
    code: int


class Supervisor:
    """Watches a deployment's processes while in its context. Those that the deployment has forgotten stay away."""

    def __init__(self, deployment: Deployment) -> None:
        self.endings: list[Ending] = []
        self.listening: dict[str, list[float]] = {name: [] for name in deployment.ports}
        """When each API process was first reached after a start, from the epoch."""
        self._deployment = deployment
        self._due: dict[str, float] = {}
        self._pauses: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._unreached: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            for name, process in list(self._deployment.processes.items()):
                if name in self._due:
                    if time.monotonic() >= self._due[name]:
                        self._start(name)
                # What a killed first process leaves of its group is killed here, as with a container.
                elif children.has_ended(process):
                    self.endings.append(Ending(name, process.pid, time.time(), process.returncode))
                    self._due[name] = time.monotonic() + self._pause(name)
            for name in sorted(self._unreached):
                if self._reached(name):
                    self._unreached.discard(name)
                    self.listening[name].append(time.time())

    def _start(self, name: str) -> None:
        del self._due[name]
        self._deployment.start_again(name)
        self._started[name] = time.monotonic()
        if name in self.listening:
            self._unreached.add(name)

    def _pause(self, name: str) -> float:
        lived = time.monotonic() - self._started.get(name, 0.0)
        before = self._pauses.get(name, 0.0) if lived < SOON_SECONDS else 0.0
        self._pauses[name] = min(max(2 * before, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        return self._pauses[name]

    def _reached(self, name: str) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._deployment.ports[name]), CONNECT_SECONDS).close()
        except OSError:
            return False
        return True

    def all_up(self) -> bool:
        """Whether every process runs, and every API process has been reached since its start."""
        return not self._due and not self._unreached

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Start nothing any more. Stopping twice is allowed."""
        self._stopping.set()
        self._thread.join()
