"""How long a job will still have the device: from what its model reports, or from what it took last."""

import math

import pytest

from services.worker.turn import Turn


class Clock:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_nothing_is_known_of_a_model_that_never_ran_and_reports_nothing() -> None:
    clock = Clock()
    turn = Turn(None, clock)
    turn.begin()
    clock.seconds += 100
    assert turn.remaining_seconds() == math.inf


def test_a_model_that_reports_nothing_takes_what_it_took_last() -> None:
    clock = Clock()
    turn = Turn(60.0, clock)
    turn.begin()
    clock.seconds += 45
    turn.report(0.0)
    assert turn.remaining_seconds() == pytest.approx(15)
    clock.seconds += 45
    assert turn.remaining_seconds() == 0


def test_reports_say_more_than_the_last_run_and_loading_is_none_of_it() -> None:
    clock = Clock()
    turn = Turn(5.0, clock)
    # Given a model that took 30 seconds to load
    turn.begin()
    clock.seconds += 30
    turn.report(0.0)
    # When a quarter of its run has taken 20
    clock.seconds += 20
    turn.report(0.25)
    # Then the rest takes 60, and reports that came late change nothing
    turn.report(0.1)
    assert turn.remaining_seconds() == pytest.approx(60)
