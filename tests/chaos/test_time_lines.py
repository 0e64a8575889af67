"""Time lines: which are whole, and which tell of a defect."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.core.jobs import JobEventKind
from tests.chaos.books import Event, Job
from tests.chaos.time_lines import attempts_of, faults_of

JOB = UUID(int=1)
LIMIT = 3


def time_line(words: str) -> list[Event]:
    """Each word a kind of event, a claim with its attempt: «claimed2»."""
    events = []
    for second, word in enumerate(words.split()):
        kind = word.rstrip("0123456789")
        attempt = int(word.removeprefix(kind) or 0)
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
        events.append(Event(JOB, at, kind, attempt, "machine:17" if attempt else None, ""))
    return events


def row(state: str, attempt: int) -> Job:
    return Job(JOB, "chaos", state, attempt, False, "label", "", None, None, None, None)


@pytest.mark.parametrize(
    ("words", "state", "attempt"),
    [
        ("accepted claimed1 succeeded", "succeeded", 1),
        ("accepted claimed1 lost claimed2 succeeded", "succeeded", 2),
        ("accepted claimed1 released claimed1 succeeded", "succeeded", 1),
        ("accepted claimed1 lost claimed2 released claimed2 lost claimed3 failed", "failed", 3),
        ("accepted cancelled", "cancelled", 0),
        ("accepted claimed1 cancel_requested cancelled", "cancelled", 1),
        ("accepted failed", "failed", 0),
        ("accepted claimed1 succeeded failed", "failed", 1),
        ("accepted claimed1 lost", "queued", 1),
    ],
)
def test_whole_time_lines(words: str, state: str, attempt: int) -> None:
    assert faults_of(row(state, attempt), time_line(words), LIMIT) == []


@pytest.mark.parametrize(
    ("words", "state", "attempt", "fault"),
    [
        ("claimed1 succeeded", "succeeded", 1, "claimed after nothing"),
        ("accepted accepted claimed1 succeeded", "succeeded", 1, "accepted after accepted"),
        ("accepted claimed1 succeeded succeeded", "succeeded", 1, "succeeded 2 times"),
        ("accepted claimed1 claimed2 succeeded", "succeeded", 2, "claimed after claimed"),
        ("accepted claimed1 lost claimed1 succeeded", "succeeded", 1, "attempt 1 was claimed where 2 was due"),
        ("accepted claimed1 cancelled claimed2", "running", 2, "claimed after cancelled"),
        ("accepted claimed1 cancel_requested succeeded", "succeeded", 1, "succeeded after cancel_requested"),
        ("accepted claimed1 failed succeeded", "succeeded", 1, "succeeded after failed"),
        ("accepted claimed1 lost", "failed", 1, "the row says failed"),
        ("accepted claimed1 succeeded", "succeeded", 2, "the row counts 2 attempts"),
        (
            "accepted claimed1 lost claimed2 lost claimed3 lost claimed4 failed",
            "failed",
            4,
            "attempt 4 is over the limit",
        ),
    ],
)
def test_time_lines_that_tell_of_a_defect(words: str, state: str, attempt: int, fault: str) -> None:
    assert any(fault in each for each in faults_of(row(state, attempt), time_line(words), LIMIT))


def test_attempts_are_claims_with_their_ends() -> None:
    words = "accepted claimed1 lost claimed2 cancel_requested cancelled"
    first, second = attempts_of(time_line(words))
    assert (first.number, first.pid, first.end) == (1, 17, JobEventKind.LOST)
    assert (second.number, second.end) == (2, JobEventKind.CANCELLED)
    assert second.ended_at - first.ended_at == 3
    [running] = attempts_of(time_line("accepted claimed1"))
    assert running.end is None
