"""Carries out a plan: applies each fault at its time, heals it at its time, and keeps the books."""

import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from random import Random

import psutil

from tests.chaos.fault import Fault, Inject, Injected
from tests.chaos.plan import Planned
from tests.chaos.world import Nothing, World

TRIES = 10
PAUSE_SECONDS = 0.5
"""Between tries of a fault that finds nothing to hit just now, such as a worker that starts."""


class Injector:
    """Works in the thread that calls `carry_out`, the main one: servers die with the thread that starts them."""

    def __init__(self, world: World, functions: Mapping[str, Inject], seed: int) -> None:
        self.faults: list[Fault] = []
        self.defects: list[str] = []
        """What could not be injected or healed although it should have been."""
        self._world = world
        self._functions = functions
        self._seed = seed
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._hit: set[str] = set()
        """Targets under a fault now."""

    def carry_out(self, faults: Sequence[Planned]) -> None:
        """Return once every fault is healed. All that is hurt is healed also when this is interrupted."""
        began = time.monotonic()
        for planned in faults:
            self._at(began + planned.at_seconds, lambda planned=planned: self._apply(planned))  # type: ignore[misc] # mypy and a default
        try:
            while self._due:
                time.sleep(max(0.0, self._due[0][0] - time.monotonic()))
                heapq.heappop(self._due)[2]()
        finally:
            self._heal_everything()

    def _at(self, when: float, do: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._due, (when, self._count, do))

    def _apply(self, planned: Planned, tries_left: int = TRIES) -> None:
        if not self._hit.isdisjoint(planned.targets):
            # The machine is slower than the plan.
            self._at(time.monotonic() + PAUSE_SECONDS, lambda: self._apply(planned, tries_left))
            return
        # A generator of its own, so that what one fault draws changes nothing for those after it.
        random = Random(f"{self._seed}/{planned.number}")
        fault = Fault(planned.number, planned.kind, planned.victim, "", frozenset(), frozenset(), time.time())
        try:
            injected = self._functions[planned.kind](self._world, planned.victim, random)
        except (Nothing, psutil.NoSuchProcess) as reason:
            if tries_left > 1:
                self._at(time.monotonic() + PAUSE_SECONDS, lambda: self._apply(planned, tries_left - 1))
                return
            fault.skipped, fault.details = True, str(reason)
            self.faults.append(fault)
            return
        except Exception as error:
            fault.skipped, fault.details = True, repr(error)
            self.faults.append(fault)
            self.defects.append(f"{planned.kind} could not be injected: {error!r}")
            return
        self.faults.append(fault)
        fault.details, fault.pids, fault.jobs = injected.details, injected.pids, injected.jobs
        fault.healed_at = float("inf")  # until it is
        self._hit.update(planned.targets)
        self._at(time.monotonic() + planned.seconds, _Heal(self, planned, fault, injected))

    def healed(self, planned: Planned) -> None:
        """Its targets may be hit again."""
        self._hit.difference_update(planned.targets)

    def _heal_everything(self) -> None:
        for _, _, do in sorted(self._due):
            if isinstance(do, _Heal):
                do()
        self._due.clear()


class _Heal:
    def __init__(self, injector: Injector, planned: Planned, fault: Fault, injected: Injected) -> None:
        self._injector, self._planned, self._fault, self._injected = injector, planned, fault, injected

    def __call__(self) -> None:
        try:
            if words := self._injected.heal():
                self._fault.details += f", {words}"
        except psutil.NoSuchProcess as gone:
            self._fault.details += f", {gone}"
        except Exception as error:
            self._injector.defects.append(f"{self._fault.kind} could not be healed: {error!r}")
        self._fault.healed_at = time.time()
        self._injector.healed(self._planned)
