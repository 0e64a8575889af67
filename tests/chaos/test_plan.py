"""The plan: the same for the same seed, fair to every kind, and never two faults on one target."""

import pytest

from tests.chaos.plan import Planned, plan
from tests.chaos.table import TABLE

KINDS = {kind.name: kind for kind in TABLE}
SEEDS = range(1, 11)


def test_the_same_seed_gives_the_same_faults_and_another_seed_others() -> None:
    assert plan(1, 120, list(TABLE)) == plan(1, 120, list(TABLE))
    assert plan(1, 120, list(TABLE)) != plan(2, 120, list(TABLE))


@pytest.mark.parametrize("seed", SEEDS)
def test_two_minutes_see_every_kind(seed: int) -> None:
    assert {fault.kind for fault in plan(seed, 120, list(TABLE))} == set(KINDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_target_is_hit_twice_at_once(seed: int) -> None:
    until: dict[str, float] = {}
    for fault in plan(seed, 300, list(TABLE)):
        for target in fault.targets:
            assert until.get(target, 0.0) <= fault.at_seconds
            until[target] = fault.at_seconds + fault.seconds


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_is_healed_and_its_aftermath_over_at_the_end(seed: int) -> None:
    def over_at(fault: Planned) -> float:
        return fault.at_seconds + fault.seconds + KINDS[fault.kind].aftermath_seconds

    assert max(map(over_at, plan(seed, 90, list(TABLE)))) <= 90.01
