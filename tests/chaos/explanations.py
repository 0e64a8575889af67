"""Which injected fault accounts for what went wrong. What none accounts for is a finding.

Deliberately narrow: an outage of PostgreSQL, for one, accounts for a lost attempt only where the worker never learnt
that its claim was granted, because a lease must not be taken back merely because nobody could send a heartbeat.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from tests.chaos.fault import Fault
from tests.chaos.journal import Unserved
from tests.chaos.model import Behaviour
from tests.chaos.supervision import Ending
from tests.chaos.time_lines import Attempt
from tests.chaos.world import DRAIN_SECONDS

SILENCES_A_WORKER = frozenset({"worker_killed", "worker_child_killed", "worker_frozen", "postgres_backend_frozen"})
TELLS_A_WORKER_TO_STOP = frozenset({"worker_terminated", "worker_clock_skewed"})
CUTS_CONNECTIONS = frozenset(
    {
        "postgres_restarted_fast",
        "postgres_restarted_immediately",
        "postgres_frozen",
        "postgres_backend_frozen",
        "postgres_backend_terminated",
        "postgres_backend_killed",
        "postgres_accept_reply_lost",
        "postgres_claim_reply_lost",
        "postgres_finish_reply_lost",
        "postgres_cut",
        "postgres_network_frozen",
    }
)
ENDS_AN_API = frozenset({"api_killed", "api_terminated"})
FILLS_THE_VOLUME = frozenset({"volume_full", "volume_nearly_full"})
ENDS_A_WORKER = frozenset({"worker_killed", "worker_child_killed"}) | TELLS_A_WORKER_TO_STOP

AT_ONCE_SECONDS = 1.0
"""Between a fault and what PostgreSQL still does for whom it hit."""
LATE_SECONDS = 3.0
"""Until what a fault has broken is whole again, on a busy machine: connections, recovery, a process that starts."""
SHUTDOWN_SECONDS = DRAIN_SECONDS + 30.0
"""From being told to stop to the end, on a busy machine, and also where it was only half started."""


def of_lost_attempt(
    attempt: Attempt,
    behaviour: Behaviour,
    faults: Sequence[Fault],
    *,
    heard: bool,
    poisoned: Iterable[Attempt] = (),
) -> Fault | Behaviour | None:
    """What ended the attempt.

    Args:
        heard: whether its worker learnt that the claim was granted.
        poisoned: the attempts whose model kills its worker, and what else that has in hand.
    """
    if "its worker stopped answering" in attempt.details:
        if behaviour is Behaviour.KILLS_ITS_PARENT:
            return behaviour
        if any(_side_by_side(attempt, other) for other in poisoned):
            return Behaviour.KILLS_ITS_PARENT
        return _silence(attempt, faults, heard=heard)
    by_words: Mapping[str, Callable[[], Fault | Behaviour | None]] = {
        # A host may be found warm a moment before it has ended.
        "was killed by SIGKILL": lambda: _first(
            faults, {"host_killed"}, attempt.claimed_at, attempt.ended_at, AT_ONCE_SECONDS, attempt.pid
        ),
        "SIGSEGV": lambda: behaviour if behaviour is Behaviour.SEGFAULTS else None,
        "bytes of memory": lambda: behaviour if behaviour is Behaviour.EATS_MEMORY else None,
        "volume for payloads is full": lambda: _first(faults, FILLS_THE_VOLUME, attempt.claimed_at, attempt.ended_at),
    }
    for words, find in by_words.items():
        if words in attempt.details:
            return find()
    return None


def _side_by_side(attempt: Attempt, other: Attempt) -> bool:
    same_worker = attempt.pid is not None and attempt.pid == other.pid
    return same_worker and attempt.claimed_at <= other.ended_at and other.claimed_at <= attempt.ended_at


def _silence(attempt: Attempt, faults: Sequence[Fault], *, heard: bool) -> Fault | None:
    """Why a worker let its lease end: it was hit itself, or never learnt that its claim was granted."""
    since, until, pid = attempt.claimed_at, attempt.ended_at, attempt.pid
    hit = _first(faults, SILENCES_A_WORKER, since, until, AT_ONCE_SECONDS, pid)
    hit = hit or _first(faults, TELLS_A_WORKER_TO_STOP, since, until, SHUTDOWN_SECONDS, pid)
    if hit is not None or heard:
        return hit
    return _first(faults, CUTS_CONNECTIONS, since - AT_ONCE_SECONDS, since + AT_ONCE_SECONDS, LATE_SECONDS)


def of_unserved(unserved: Unserved, faults: Sequence[Fault], listening: Mapping[str, Sequence[float]]) -> Fault | None:
    """What kept the API from serving."""
    since, until = unserved.since, unserved.until
    if unserved.status is None:
        return next((f for f in faults if _api_was_away(f, unserved, listening)), None)
    if unserved.status == 503:
        return _first(faults, CUTS_CONNECTIONS, since, until, LATE_SECONDS)
    if unserved.status == 507:
        return _first(faults, FILLS_THE_VOLUME, since, until)
    if unserved.status == 408:
        return _first(faults, {"api_frozen"}, since, until)
    return None


def _api_was_away(fault: Fault, unserved: Unserved, listening: Mapping[str, Sequence[float]]) -> bool:
    if fault.kind not in ENDS_AN_API or fault.victim != unserved.api or fault.skipped:
        return False
    back_at = min((at for at in listening[unserved.api] if at > fault.applied_at), default=float("inf"))
    return fault.applied_at <= unserved.until and unserved.since <= back_at


def of_ending(ending: Ending, faults: Sequence[Fault], poisoned: Iterable[Attempt]) -> Fault | Behaviour | None:
    """What ended a process. `poisoned`: the attempts whose model kills its worker."""
    fault = next(
        (
            fault
            for fault in faults
            if fault.kind in ENDS_AN_API | ENDS_A_WORKER
            and ending.name in fault.victim.split("+")
            and fault.overlaps(ending.at - SHUTDOWN_SECONDS, ending.at)
        ),
        None,
    )
    if fault is None and ending.name.startswith("worker"):
        # The first process notices within a second, and ends as well.
        killed = any(attempt.claimed_at <= ending.at <= attempt.ended_at + LATE_SECONDS for attempt in poisoned)
        return Behaviour.KILLS_ITS_PARENT if killed else None
    return fault


def _first(
    faults: Sequence[Fault],
    kinds: Iterable[str],
    since: float,
    until: float,
    grace_seconds: float = 0.0,
    pid: int | None = None,
) -> Fault | None:
    """The first fault of these kinds in that time, or in the grace before; of this process, if one is named."""
    return next(
        (
            fault
            for fault in faults
            if fault.kind in kinds
            and fault.overlaps(since, until, grace_seconds)
            and (pid is None or pid in fault.pids)
        ),
        None,
    )
