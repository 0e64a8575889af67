"""Turns at the device: one job at a time loads and runs its model, while others are decoded and encoded."""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.core.errors import Cancelled
from services.core.jobs import Priority


class DeviceTurns:
    """Gives turns by priority, then in the order in which they were asked for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._waiting: list[tuple[int, int]] = []
        self._in_use = False

    @contextmanager
    def turn(self, priority: Priority, stopped: Callable[[], bool]) -> Iterator[None]:
        """Wait for the device, and have it for the context.

        Raises Cancelled once `stopped` is true before the turn has come; whoever makes it true calls `wake`.
        """
        with self._changed:
            ticket = (-int(priority), next(self._numbers))
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: stopped() or (not self._in_use and ticket == min(self._waiting)))
                if stopped():
                    raise Cancelled("The job was stopped while it waited for the device.")
                self._in_use = True
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._in_use = False
                self._changed.notify_all()

    def wake(self) -> None:
        """Have those who wait see whether they were stopped."""
        with self._changed:
            self._changed.notify_all()
