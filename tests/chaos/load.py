"""All clients together."""

import threading
import time
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Self

from tests.chaos.journal import Journal
from tests.chaos.model import Behaviour
from tests.chaos.submission import Submission
from tests.chaos.workstation import Workstation

CLIENTS = 6


class Load:
    """Clients in threads of their own, which work while in its context."""

    def __init__(self, seed: int, urls: Mapping[str, str], journal: Journal, wanted: "SimpleQueue[Behaviour]") -> None:
        self._closing = threading.Event()
        self._ending = threading.Event()
        self._clients = [
            Workstation(f"client{number}", seed, urls, journal, wanted, self._closing, self._ending)
            for number in range(1, CLIENTS + 1)
        ]

    def __enter__(self) -> Self:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close(0)

    def close(self, limit_seconds: float) -> None:
        """Submit nothing more; clients may follow what they have submitted for that long, then they give it up."""
        self._closing.set()
        deadline = time.monotonic() + limit_seconds
        for client in self._clients:
            client.join(max(0.0, deadline - time.monotonic()))
        self._ending.set()
        for client in self._clients:
            client.join()

    def submissions(self) -> list[Submission]:
        return [submission for client in self._clients for submission in client.submissions]
