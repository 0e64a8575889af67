"""How long a job will still have the device."""

import math
import time
from collections.abc import Callable

LEAST_FRACTION = 0.05
"""Before that much is done, the time it took says little of the rest: a GPU's first patches are its slowest."""


class Turn:
    """One job's turn at the device, from what its model reports, or else from what it took last."""

    def __init__(self, expected_seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._expected_seconds = expected_seconds
        self._clock = clock
        self._began_at = math.inf
        self._loaded_at = math.inf
        self._fraction = 0.0

    def begin(self) -> None:
        """The job has the device."""
        self._began_at = self._clock()

    def report(self, fraction: float) -> None:
        """That share of the model's run is done; its first report says that it is loaded."""
        self._loaded_at = min(self._loaded_at, self._clock())
        self._fraction = max(self._fraction, fraction)

    def remaining_seconds(self) -> float:
        """Infinite where nothing is known. A run that takes longer than the last one may end at any moment."""
        if self._fraction >= LEAST_FRACTION:
            return (self._clock() - self._loaded_at) * (1 - self._fraction) / self._fraction
        if self._expected_seconds is None:
            return math.inf
        return max(0.0, self._expected_seconds - (self._clock() - self._began_at))
