"""Which fault comes when, and to whom: all of it drawn beforehand from the seed."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

FIRST_SECONDS = 3.0
"""Clients get that far before anything breaks."""
GAP_SECONDS = (1.5, 4.5)
"""Between the beginnings of two faults: every kind comes once in some 90 s, and one is usually under way."""
DECIMALS = 3


@dataclass(frozen=True)
class Kind:
    """One kind of fault."""

    name: str
    victims: tuple[str, ...]
    """One of them is hit. Several at once are written a+b."""
    seconds: tuple[float, float] = (0.0, 0.0)
    """How long it lasts, at least and at most; then it is healed."""
    target: str = ""
    """What no other fault may hit meanwhile; the victim itself if empty."""
    recovery_seconds: float = 2.0
    """Before the next fault hits the same target."""
    aftermath_seconds: float = 0.0
    """How long before the end it has to be healed, so that what follows from it is over soon afterwards too."""

    def targets(self, victim: str) -> tuple[str, ...]:
        """What is hit, of which no other fault may hit anything meanwhile."""
        return tuple((self.target or victim).split("+"))


@dataclass(frozen=True)
class Planned:
    """One fault to come."""

    number: int
    at_seconds: float
    """After the beginning."""
    kind: str
    victim: str
    seconds: float
    targets: tuple[str, ...]


def plan(seed: int, total_seconds: float, kinds: Sequence[Kind]) -> list[Planned]:
    """The faults of one run, all healed within `total_seconds`. The same arguments give the same faults.

    Every kind comes in turn, in an order that the seed shuffles anew each time; a kind whose target is still under
    another fault, or whose aftermath would outlast the run, lets the next one go first.
    """
    random = Random(seed)
    faults: list[Planned] = []
    free_at: dict[str, float] = {}
    coming = _shuffled_for_ever(random, kinds)
    waiting: list[Kind] = []
    now = FIRST_SECONDS
    while now < total_seconds:
        while len(waiting) < len(kinds):
            waiting.append(next(coming))
        fault = _first_possible(random, waiting, free_at, now, total_seconds)
        if fault is not None:
            kind, victim, seconds = fault
            waiting.remove(kind)
            targets = kind.targets(victim)
            faults.append(
                Planned(len(faults) + 1, round(now, DECIMALS), kind.name, victim, round(seconds, DECIMALS), targets)
            )
            free_at |= dict.fromkeys(targets, now + seconds + kind.recovery_seconds)
        now += random.uniform(*GAP_SECONDS)
    return faults


def _shuffled_for_ever(random: Random, kinds: Sequence[Kind]) -> Iterator[Kind]:
    """Those with a long aftermath or many rivals for their target rather sooner, or a short run would not see all."""
    rivals = Counter(target for kind in kinds for target in kind.targets(kind.victims[0]))

    def weight(kind: Kind) -> float:
        return 1 + kind.aftermath_seconds / 10 + rivals[kind.targets(kind.victims[0])[0]] / 5

    while True:
        yield from sorted(kinds, key=lambda kind: random.random() / weight(kind))


def _first_possible(
    random: Random, waiting: Sequence[Kind], free_at: Mapping[str, float], now: float, total_seconds: float
) -> tuple[Kind, str, float] | None:
    """Kind, victim and duration of the first that can begin now."""
    for kind in waiting:
        free = [
            victim for victim in kind.victims if all(free_at.get(target, 0.0) <= now for target in kind.targets(victim))
        ]
        seconds = random.uniform(*kind.seconds)
        if free and now + seconds + kind.aftermath_seconds <= total_seconds:
            return kind, random.choice(free), seconds
    return None
