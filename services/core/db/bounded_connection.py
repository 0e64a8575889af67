"""A PostgreSQL connection that gives up on a server which does not answer."""

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen

T = TypeVar("T")

LOOK_SECONDS = 0.1
"""How often a wait without news is looked at."""


class NoAnswer(psycopg.OperationalError):
    """Nothing came within the connection's patience. The connection is closed."""


class BoundedConnection(psycopg.Connection[Any]):
    """Waits for no answer longer than `answer_timeout_seconds`.

    The server enforces the statement time-out by itself, unless it is frozen, or its machine is; then only a client
    that counts too gets on.
    """

    answer_timeout_seconds = 20.0

    def wait(self, gen: PQGen[T], interval: float = LOOK_SECONDS, timeout: float | None = None) -> T:
        """As psycopg's, which every statement passes through; raises NoAnswer."""
        try:
            return super().wait(_until(gen, time.monotonic() + self.answer_timeout_seconds), interval, timeout)
        except NoAnswer:
            self.close()  # the answer may still come, and must not be taken for the next statement's
            raise


def _until(gen: PQGen[T], deadline: float) -> Generator[Any, Any, T]:
    """`gen`, ended at the deadline. Whoever drives it resumes it at each look, with news or without."""
    try:
        waits_for = next(gen)
        while True:
            ready = yield waits_for
            if not ready and time.monotonic() > deadline:
                raise NoAnswer("the server did not answer in time")
            waits_for = gen.send(ready)
    except StopIteration as done:
        answer: T = done.value
        return answer
