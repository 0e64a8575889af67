"""How long a server may be away while something on it is waited for."""

import time

from services.client.faults import may_pass
from services.core.errors import SegIntError

LONGEST_SILENCE_SECONDS = 30.0
"""A server that restarts keeps its segmentations; this long it may be away while one is waited for."""


class Patience:
    """Begins with now, and anew with every answer."""

    def __init__(self) -> None:
        self._answered = time.monotonic()

    def answered(self) -> None:
        """The server is there."""
        self._answered = time.monotonic()

    def bear(self, error: SegIntError) -> None:
        """Return if what went wrong may pass and has not lasted too long; raise it otherwise."""
        if not may_pass(error) or time.monotonic() - self._answered > LONGEST_SILENCE_SECONDS:
            raise error
