"""The books against what clients were told and what was injected: one violation for everything that does not fit."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from uuid import UUID

from services.core.jobs import FINISHED, JobEventKind, JobState
from tests.chaos import explanations
from tests.chaos.books import Books, Job
from tests.chaos.fault import Fault
from tests.chaos.journal import BadDownload, Journal, Unserved, Violation, Wrong
from tests.chaos.model import Behaviour
from tests.chaos.submission import Submission
from tests.chaos.supervision import Supervisor
from tests.chaos.time_lines import Attempt, attempts_of, faults_of
from tests.chaos.worker_logs import Claim
from tests.chaos.world import ATTEMPT_LIMIT

HURTS_A_RESULT = frozenset({"result_damaged", "result_deleted"})


@dataclass
class Findings:
    """What the audit found."""

    violations: list[Violation] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    """Of all jobs."""
    lost_attempts: Counter[str] = field(default_factory=Counter)
    """By what accounts for them."""
    bad_luck: int = 0
    """Innocent jobs that failed at the attempt limit, each attempt lost to an injected fault."""
    unclaimed: int = 0
    """Jobs of requests whose sender never learnt that they were accepted."""
    requeue_seconds: float = 0.0
    """Longest time from the death of a worker or host to the job being queued again."""
    rerun_seconds: float = 0.0
    """Longest time from there to its next claim."""

    def add(self, wrong: Wrong, text: str) -> None:
        self.violations.append(Violation(wrong, text))


class Audit:
    """Reads everything once and keeps what it found."""

    def __init__(
        self,
        books: Books,
        submissions: Sequence[Submission],
        faults: Sequence[Fault],
        journal: Journal,
        supervisor: Supervisor,
        heard_claims: Counter[Claim],
    ) -> None:
        self.findings = Findings()
        self._books = books
        self._faults = faults
        self._journal = journal
        self._supervisor = supervisor
        self._heard_claims = heard_claims
        self._accepted = {s.job_id: s for s in submissions if s.job_id is not None}
        self._of_label = {label: s for s in submissions for label in s.tries}

    def run(self) -> Findings:
        self._check_accepted()
        self._check_labels()
        for job in self._books.jobs.values():
            self._check_job(job)
        self._check_unserved()
        self._check_downloads()
        self._check_endings()
        return self.findings

    # Jobs

    def _check_accepted(self) -> None:
        for job_id, submission in self._accepted.items():
            job = self._books.jobs.get(job_id)
            if job is None:
                self.findings.add(Wrong.LOST, f"{job_id} ({submission.accepted_label}) was accepted and has no row")
            elif job.client_version != submission.accepted_label:
                self.findings.add(
                    Wrong.LOST, f"{job_id} was given for {submission.accepted_label} and is {job.client_version}"
                )

    def _check_labels(self) -> None:
        rows = Counter(job.client_version for job in self._books.jobs.values())
        for label, count in rows.items():
            if label not in self._of_label:
                self.findings.add(Wrong.ANSWER, f"nobody has sent {label}, which became a job")
            if count > 1:
                self.findings.add(Wrong.REPEATED, f"one request, {label}, became {count} jobs")
        accepted = {submission.accepted_label for submission in self._accepted.values()}
        self.findings.unclaimed = len(rows.keys() - accepted)

    def _check_job(self, job: Job) -> None:
        events = self._books.events[job.id]
        self.findings.states[job.state] += 1
        if JobState(job.state) not in FINISHED:
            self.findings.add(Wrong.STUCK, f"{self._called(job)} is still {job.state}")
        for fault in faults_of(job, events, ATTEMPT_LIMIT):
            repeated = fault.startswith("succeeded")
            self.findings.add(Wrong.REPEATED if repeated else Wrong.TIME_LINE, f"{self._called(job)}: {fault}")
        attempts = attempts_of(events)
        explained = [self._check_attempt(job, attempt) for attempt in attempts]
        self._check_outcome(job, attempts, all(explained))
        self._measure_reruns(job, attempts)

    def _check_attempt(self, job: Job, attempt: Attempt) -> bool:
        """Whether the attempt's end is accounted for."""
        failed_at_limit = attempt.end is JobEventKind.FAILED and "attempts; the last one" in job.error_text
        if attempt.end is not JobEventKind.LOST and not failed_at_limit:
            return True
        cause = self._cause(job, attempt)
        name = cause.kind if isinstance(cause, Fault) else "" if cause is None else cause.name.lower()
        self.findings.lost_attempts[name or "unexplained"] += 1
        if cause is None:
            self.findings.add(
                Wrong.UNEXPLAINED, f"{self._called(job)} lost attempt {attempt.number}: {attempt.details}"
            )
        return cause is not None

    def _check_outcome(self, job: Job, attempts: Sequence[Attempt], explained: bool) -> None:
        state, behaviour = JobState(job.state), self._behaviour(job)
        hurt = self._hurt(job.id)
        asked = self._asked_to_cancel(job)
        if asked in (200, 202) and state is not JobState.CANCELLED and not hurt:
            self.findings.add(Wrong.ANSWER, f"{self._called(job)} was cancelled ({asked}) and has {state}")
        if state is JobState.CANCELLED and asked is None:
            self.findings.add(Wrong.UNEXPLAINED, f"{self._called(job)} is cancelled, and nobody asked for it")
        if behaviour is not Behaviour.GOOD and state in FINISHED and not hurt:
            self._check_poisonous(job, behaviour)
        elif state is JobState.FAILED and not hurt:
            if "attempts; the last one" in job.error_text and explained and len(attempts) >= ATTEMPT_LIMIT:
                self.findings.bad_luck += 1
            else:
                self.findings.add(Wrong.UNEXPLAINED, f"{self._called(job)} failed: {job.error_text}")
        if state is JobState.SUCCEEDED and hurt in HURTS_A_RESULT:
            self.findings.add(Wrong.RESULT, f"{self._called(job)} succeeded, and its result is damaged or gone")

    def _check_poisonous(self, job: Job, behaviour: Behaviour) -> None:
        if job.state != JobState.FAILED or job.attempt != ATTEMPT_LIMIT:
            self.findings.add(
                Wrong.TIME_LINE,
                f"{self._called(job)} always {behaviour.name.lower()}, and {job.state} in {job.attempt}",
            )

    def _measure_reruns(self, job: Job, attempts: Sequence[Attempt]) -> None:
        deaths = {"worker_killed", "worker_child_killed", "host_killed"}
        for attempt, following in zip_longest(attempts, attempts[1:]):
            if attempt.end is not JobEventKind.LOST:
                continue
            cause = self._cause(job, attempt)
            if isinstance(cause, Fault) and cause.kind in deaths and cause.applied_at >= attempt.claimed_at:
                found = self.findings
                found.requeue_seconds = max(found.requeue_seconds, round(attempt.ended_at - cause.applied_at, 2))
                if following is not None:
                    found.rerun_seconds = max(found.rerun_seconds, round(following.claimed_at - cause.applied_at, 2))

    def _cause(self, job: Job, attempt: Attempt) -> Fault | Behaviour | None:
        claims = sum(
            event.kind == JobEventKind.CLAIMED and event.attempt == attempt.number
            for event in self._books.events[job.id]
        )
        heard = self._heard_claims[job.id, attempt.number] >= claims
        return explanations.of_lost_attempt(
            attempt, self._behaviour(job), self._faults, heard=heard, poisoned=self._poisoned()
        )

    def _poisoned(self) -> list[Attempt]:
        """The attempts whose model kills its worker."""
        return [
            attempt
            for job in self._books.jobs.values()
            if self._behaviour(job) is Behaviour.KILLS_ITS_PARENT
            for attempt in attempts_of(self._books.events[job.id])
        ]

    def _behaviour(self, job: Job) -> Behaviour:
        submission = self._of_label.get(job.client_version)
        return Behaviour.GOOD if submission is None else submission.order.behaviour

    def _asked_to_cancel(self, job: Job) -> int | None:
        submission = self._accepted.get(job.id)
        return None if submission is None else submission.cancel_answer

    def _hurt(self, job_id: UUID) -> str:
        """The fault that hurt one of the job's files; a hurt result counts most."""
        kinds = [fault.kind for fault in self._faults if str(job_id) in fault.jobs and not fault.skipped]
        return max(kinds, default="")

    def _called(self, job: Job) -> str:
        return f"{job.id} ({job.client_version})"

    # What clients saw

    def _check_unserved(self) -> None:
        listening = self._supervisor.listening
        for unserved in self._journal.unserved:
            if explanations.of_unserved(unserved, self._faults, listening) is None:
                self.findings.add(Wrong.UNEXPLAINED, f"{_said(unserved)}, and no fault accounts for it")

    def _check_downloads(self) -> None:
        for bad in self._journal.bad_downloads:
            if not self._damaged_meanwhile(bad):
                self.findings.add(Wrong.RESULT, f"{bad.job_id}: {bad.text}")
        for job_id, submission in self._accepted.items():
            if submission.refused_result and self._hurt(job_id) not in HURTS_A_RESULT:
                self.findings.add(
                    Wrong.RESULT,
                    f"{job_id} ({submission.accepted_label}) had succeeded, and then: {submission.refused_result}",
                )

    def _damaged_meanwhile(self, bad: BadDownload) -> bool:
        """A file may be damaged between its check and its last byte; no server can tell that."""
        return any(
            fault.kind in HURTS_A_RESULT
            and str(bad.job_id) in fault.jobs
            and bad.since <= fault.applied_at <= bad.until
            for fault in self._faults
        )

    def _check_endings(self) -> None:
        poisoned = self._poisoned()
        for ending in self._supervisor.endings:
            if explanations.of_ending(ending, self._faults, poisoned) is None:
                self.findings.add(Wrong.UNEXPLAINED, f"{ending.name} ended by itself with code {ending.code}")


def refusals_by_reason(unserved: Sequence[Unserved]) -> Mapping[str, int]:
    """How often each."""
    return dict(Counter(each.reason for each in unserved).most_common())


def _said(unserved: Unserved) -> str:
    return f"{unserved.what} to {unserved.api} got {unserved.reason} after {unserved.until - unserved.since:.0f} s"
