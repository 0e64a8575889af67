"""Explanations: a fault accounts for what it can have caused, and for nothing else."""

from dataclasses import replace

import pytest

from services.core.jobs import JobEventKind
from tests.chaos import explanations
from tests.chaos.fault import Fault
from tests.chaos.journal import Unserved
from tests.chaos.model import Behaviour
from tests.chaos.supervision import Ending
from tests.chaos.time_lines import Attempt

SILENCE = "its worker stopped answering"


def fault(kind: str, at: float = 100.0, until: float = 103.0, victim: str = "x", pids: tuple[int, ...] = ()) -> Fault:
    return Fault(1, kind, victim, "", frozenset(pids), frozenset(), at, until)


def attempt(details: str, claimed_at: float = 99.0, ended_at: float = 106.0) -> Attempt:
    return Attempt(1, 17, claimed_at, ended_at, JobEventKind.LOST, details)


@pytest.mark.parametrize(
    ("lost", "cause"),
    [
        (attempt(SILENCE), fault("worker_killed", pids=(16, 17))),
        (attempt(SILENCE), fault("worker_frozen", pids=(17,))),
        (attempt("The host was killed by SIGKILL, most likely"), fault("host_killed", pids=(17, 99))),
        (attempt("The server's volume for payloads is full"), fault("volume_full")),
        # It was told to stop just before, and could not give the job back.
        (attempt(SILENCE, claimed_at=104.5), fault("worker_terminated", pids=(17,))),
    ],
)
def test_accounted_for(lost: Attempt, cause: Fault) -> None:
    assert explanations.of_lost_attempt(lost, Behaviour.GOOD, [cause], heard=True) is cause


@pytest.mark.parametrize(
    ("lost", "other"),
    [
        (attempt(SILENCE), fault("worker_killed", pids=(18,))),
        (attempt(SILENCE, claimed_at=150.0, ended_at=155.0), fault("worker_killed", pids=(17,))),
        (attempt(SILENCE, claimed_at=104.5), fault("worker_frozen", pids=(17,))),
        (attempt(SILENCE, ended_at=99.5), fault("worker_killed", pids=(17,))),
        # Nobody could send heartbeats, which is no reason to take the lease back.
        (attempt(SILENCE, claimed_at=90.0), fault("postgres_frozen", until=109.0)),
        (attempt(SILENCE), fault("redis_lost")),
        (attempt("the worker failed (KeyError())"), fault("worker_killed", pids=(17,))),
        (attempt("The host was killed by SIGSEGV"), fault("host_killed", pids=(17,))),
    ],
)
def test_not_accounted_for(lost: Attempt, other: Fault) -> None:
    assert explanations.of_lost_attempt(lost, Behaviour.GOOD, [other], heard=True) is None


@pytest.mark.parametrize(
    ("heard", "claimed_at", "accounted"), [(False, 102.0, True), (True, 102.0, False), (False, 90.0, False)]
)
def test_a_cut_connection_accounts_for_a_claim_that_its_worker_never_heard_of(
    heard: bool, claimed_at: float, accounted: bool
) -> None:
    cut = fault("postgres_cut")
    found = explanations.of_lost_attempt(attempt(SILENCE, claimed_at), Behaviour.GOOD, [cut], heard=heard)
    assert (found is cut) is accounted


def test_a_model_that_kills_its_worker_accounts_for_what_that_had_in_hand_as_well() -> None:
    def found(poisoned: Attempt) -> object:
        return explanations.of_lost_attempt(attempt(SILENCE), Behaviour.GOOD, [], heard=True, poisoned=[poisoned])

    assert found(attempt(SILENCE, claimed_at=98.0)) is Behaviour.KILLS_ITS_PARENT
    assert found(attempt(SILENCE, claimed_at=90.0, ended_at=95.0)) is None
    assert found(replace(attempt(SILENCE), pid=18)) is None


def test_a_fault_that_found_nothing_accounts_for_nothing() -> None:
    skipped = fault("worker_killed", pids=(17,))
    skipped.skipped = True
    assert explanations.of_lost_attempt(attempt(SILENCE), Behaviour.GOOD, [skipped], heard=True) is None


@pytest.mark.parametrize(
    ("details", "behaviour"),
    [
        (SILENCE, Behaviour.KILLS_ITS_PARENT),
        ("was killed by SIGSEGV", Behaviour.SEGFAULTS),
        ("took more than the 7 bytes of memory", Behaviour.EATS_MEMORY),
    ],
)
def test_a_model_accounts_for_what_its_volume_asks_of_it_alone(details: str, behaviour: Behaviour) -> None:
    assert explanations.of_lost_attempt(attempt(details), behaviour, [], heard=True) is behaviour
    assert explanations.of_lost_attempt(attempt(details), Behaviour.GOOD, [], heard=True) is None


@pytest.mark.parametrize(
    ("status", "cause", "at", "accounted"),
    [
        (None, fault("api_killed", victim="api1"), 104.0, True),
        (None, fault("api_killed", victim="api1"), 111.0, False),
        (None, fault("api_killed", victim="api2"), 104.0, False),
        (None, fault("postgres_cut"), 101.0, False),
        (503, fault("postgres_cut"), 101.0, True),
        (503, fault("postgres_cut"), 105.0, True),
        (503, fault("postgres_cut"), 107.0, False),
        (503, fault("worker_killed"), 101.0, False),
        (507, fault("volume_nearly_full"), 101.0, True),
        (507, fault("volume_full"), 104.0, False),
        (500, fault("postgres_cut"), 101.0, False),
    ],
)
def test_unserved_requests(status: int | None, cause: Fault, at: float, accounted: bool) -> None:
    unserved = Unserved("api1", "POST", "", at, at + 0.1, status)
    # api1 listened again at 110.
    found = explanations.of_unserved(unserved, [cause], {"api1": [50.0, 110.0], "api2": []})
    assert (found is cause) is accounted


def test_ends_of_processes() -> None:
    ending = Ending("worker1", 17, 104.0, 1)
    killed = fault("worker_killed", victim="worker1", until=100.0)
    assert explanations.of_ending(ending, [killed], []) is killed
    assert explanations.of_ending(ending, [fault("worker_killed", victim="worker2")], []) is None
    assert explanations.of_ending(ending, [], [attempt(SILENCE)]) is Behaviour.KILLS_ITS_PARENT
    assert explanations.of_ending(ending, [], [attempt(SILENCE, ended_at=100.0)]) is None
