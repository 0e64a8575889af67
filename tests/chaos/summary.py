"""What a run comes to: numbers as JSON, violations as lines."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.audit import Findings, refusals_by_reason
from tests.chaos.books import Books
from tests.chaos.fault import Fault
from tests.chaos.journal import Journal, Wrong
from tests.chaos.submission import Submission


def summary(
    seed: int,
    minutes: float,
    submissions: Sequence[Submission],
    faults: Sequence[Fault],
    journal: Journal,
    findings: Findings,
) -> dict[str, Any]:
    """Times in seconds."""
    violations = [*journal.violations, *findings.violations]
    wrong = Counter(violation.wrong.value for violation in violations)
    injected = [fault for fault in faults if not fault.skipped]
    return {
        "seed": seed,
        "minutes": minutes,
        "requests": sum(len(submission.tries) for submission in submissions),
        "submitted": len(submissions),
        "accepted": sum(submission.job_id is not None for submission in submissions),
        "accepted_without_an_answer": findings.unclaimed,
        "jobs_by_state": dict(findings.states),
        "fetched": sum(submission.fetched for submission in submissions),
        "failed_by_bad_luck": findings.bad_luck,
        "answers": dict(sorted(journal.answers.items())),
        "refused_by_reason": refusals_by_reason(journal.unserved),
        "faults": len(injected),
        "faults_by_kind": dict(sorted(Counter(fault.kind for fault in injected).items())),
        "faults_with_nothing_to_hit": {fault.kind: fault.details for fault in faults if fault.skipped},
        "lost_attempts_by_cause": dict(findings.lost_attempts.most_common()),
        **{kind.value.replace(" ", "_"): wrong[kind.value] for kind in Wrong},
        "slowest_answer": dict(zip(("seconds", "what"), journal.slowest, strict=True)),
        "longest_requeue_seconds": findings.requeue_seconds,
        "longest_rerun_seconds": findings.rerun_seconds,
        "violations": _once_each(f"{violation.wrong}: {violation.text}" for violation in violations),
    }


def _once_each(texts: Iterable[str]) -> list[str]:
    """A defect that every request meets is told once, with how often it was met."""
    return [text if count == 1 else f"{text} ({count} times)" for text, count in Counter(texts).items()]


def write_books(folder: Path, faults: Sequence[Fault], books: Books, journal: Journal) -> None:
    """What one needs to find out why: faults, time lines and refusals, one JSON object a line."""
    for name, things in {
        "faults": faults,
        "time_lines": [event for events in books.events.values() for event in events],
        "jobs": list(books.jobs.values()),
        "refusals": journal.unserved,
    }.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for thing in things:
                file.write(json.dumps(vars(thing), default=_plain) + "\n")


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset) else str(value)
