"""Turns at the device: one at a time, by priority, then as asked for; who is stopped leaves at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.core.errors import Cancelled
from services.core.jobs import Priority
from services.worker.device_turns import DeviceTurns
from tests.worker.conditions import wait_until


def waiting(turns: DeviceTurns) -> int:
    return len(turns._waiting)


def test_turns_come_by_priority_then_in_the_order_of_asking() -> None:
    turns = DeviceTurns()
    order: list[str] = []
    inside: list[int] = []

    def take(name: str, priority: Priority) -> None:
        with turns.turn(priority, lambda: False):
            inside.append(threading.get_ident())
            assert len(inside) == 1
            order.append(name)
            inside.pop()

    asked = [
        ("first batch", Priority.BATCH),
        ("first interactive", Priority.INTERACTIVE),
        ("second batch", Priority.BATCH),
        ("second interactive", Priority.INTERACTIVE),
    ]
    with ThreadPoolExecutor(len(asked)) as jobs:
        # Given a job on the device, and four that ask meanwhile, one after the other
        with turns.turn(Priority.BATCH, lambda: False):
            running = []
            for count, (name, priority) in enumerate(asked, 1):
                running.append(jobs.submit(take, name, priority))
                wait_until(lambda count=count: waiting(turns) == count)  # type: ignore[misc] # a default that is bound
            assert order == []
        # When it leaves, Then they come by priority
        for job in running:
            job.result(30)
    assert order == ["first interactive", "second interactive", "first batch", "second batch"]


def test_who_is_stopped_while_it_waits_leaves_at_once_and_holds_up_nobody() -> None:
    turns = DeviceTurns()
    stop = threading.Event()

    def take(stopped: threading.Event) -> None:
        with turns.turn(Priority.INTERACTIVE, stopped.is_set):
            pass

    with ThreadPoolExecutor(2) as jobs:
        with turns.turn(Priority.INTERACTIVE, lambda: False):
            stopped = jobs.submit(take, stop)
            wait_until(lambda: waiting(turns) == 1)
            other = jobs.submit(take, threading.Event())
            wait_until(lambda: waiting(turns) == 2)
            # When the first of two that wait is stopped, Then it leaves though the device is in use
            stop.set()
            turns.wake()
            with pytest.raises(Cancelled):
                stopped.result(30)
            assert not other.done()
        # And the other has its turn
        other.result(30)


def test_a_turn_that_ends_with_an_error_is_over() -> None:
    turns = DeviceTurns()
    with pytest.raises(ValueError, match="model"), turns.turn(Priority.BATCH, lambda: False):
        raise ValueError("model")
    with turns.turn(Priority.BATCH, lambda: False):
        assert waiting(turns) == 0
