"""Whether a job's time line is one that may be: begins with its acceptance, claims in turn, ends once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.core.jobs import FINISHED, JobEventKind, JobState
from tests.chaos.books import Event, Job

K = JobEventKind
ENDS = frozenset({K.SUCCEEDED, K.FAILED, K.CANCELLED})
MAY_FOLLOW: Mapping[JobEventKind | None, frozenset[JobEventKind]] = {
    None: frozenset({K.ACCEPTED}),
    # A queued job may fail: its input is gone.
    K.ACCEPTED: frozenset({K.CLAIMED, K.CANCELLED, K.FAILED}),
    K.CLAIMED: frozenset({K.NOTED, K.RELEASED, K.LOST, K.CANCEL_REQUESTED, *ENDS}),
    K.NOTED: frozenset({K.NOTED, K.RELEASED, K.LOST, K.CANCEL_REQUESTED, *ENDS}),
    K.CANCEL_REQUESTED: frozenset({K.CANCELLED, K.FAILED}),
    K.RELEASED: frozenset({K.CLAIMED, K.CANCELLED, K.FAILED}),
    K.LOST: frozenset({K.CLAIMED, K.CANCELLED, K.FAILED}),
    # A result that was damaged or lost on the volume.
    K.SUCCEEDED: frozenset({K.FAILED, K.EXPIRED}),
    K.FAILED: frozenset({K.EXPIRED}),
    K.CANCELLED: frozenset({K.EXPIRED}),
    K.EXPIRED: frozenset(),
}


@dataclass(frozen=True)
class Attempt:
    """One claim and what became of it. Times count from the epoch."""

    number: int
    pid: int | None
    claimed_at: float
    ended_at: float
    end: JobEventKind | None
    """None: it runs still."""
    details: str


def faults_of(job: Job, events: Sequence[Event], attempt_limit: int) -> list[str]:
    """What is wrong with the time line, in words."""
    faults = []
    before: JobEventKind | None = None
    number = 0
    for event in events:
        kind = JobEventKind(event.kind)
        if kind not in MAY_FOLLOW[before]:
            faults.append(f"{kind} after {before or 'nothing'}")
        if kind is K.CLAIMED:
            number += 1
            if event.attempt != number:
                faults.append(f"attempt {event.attempt} was claimed where {number} was due")
            if event.attempt > attempt_limit:
                faults.append(f"attempt {event.attempt} is over the limit of {attempt_limit}")
        elif kind is K.RELEASED:
            number -= 1
        before = kind
    successes = sum(event.kind == K.SUCCEEDED for event in events)
    if successes > 1:
        faults.append(f"succeeded {successes} times")
    if JobState(job.state) in {*FINISHED, JobState.EXPIRED} and (before is None or job.state != before.value):
        faults.append(f"the row says {job.state}, the time line ends with {before}")
    if job.attempt != number:
        faults.append(f"the row counts {job.attempt} attempts, the time line {number}")
    return faults


def attempts_of(events: Sequence[Event]) -> list[Attempt]:
    """Every claim, oldest first."""
    attempts = []
    claim: Event | None = None
    for event in events:
        kind = JobEventKind(event.kind)
        if kind is K.CLAIMED:
            claim = event
        elif claim is not None and kind in {K.RELEASED, K.LOST, *ENDS}:
            attempts.append(Attempt(claim.attempt, claim.pid, claim.epoch, event.epoch, kind, event.details))
            claim = None
    if claim is not None:
        attempts.append(Attempt(claim.attempt, claim.pid, claim.epoch, float("inf"), None, ""))
    return attempts
