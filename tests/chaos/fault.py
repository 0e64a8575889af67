"""A fault as it was injected: whom it hit, and from when to when."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.chaos.world import World


def nothing() -> None:
    """For faults that heal by themselves."""


@dataclass(frozen=True)
class Injected:
    """What a fault did, and how to heal it."""

    details: str = ""
    pids: frozenset[int] = frozenset()
    """Processes that it hit; of a worker the ones that claims name."""
    heal: Callable[[], str | None] = nothing
    """May have something to add to the details."""
    jobs: frozenset[str] = frozenset()
    """Jobs whose files it hurt."""


Inject = Callable[[World, str, Random], Injected]
"""Hurts the victim of that name. Raises Nothing where there is nothing to hit, else works or is a defect here."""


@dataclass
class Fault:
    """One fault in the books. Times count from the epoch."""

    number: int
    kind: str
    victim: str
    details: str
    pids: frozenset[int]
    jobs: frozenset[str]
    applied_at: float
    healed_at: float | None = None
    skipped: bool = False
    """There was nothing to hit; `details` says why."""

    def overlaps(self, since: float, until: float, grace_seconds: float = 0.0) -> bool:
        """Whether it was there at some time between `since` and `until`, or no longer than the grace before."""
        healed_at = self.applied_at if self.healed_at is None else self.healed_at
        return not self.skipped and self.applied_at <= until and since <= healed_at + grace_seconds
