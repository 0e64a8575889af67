"""Cancelling on request, alone and against a claim, a finish, a release and a reaper at the same moment."""

import threading
from uuid import uuid4

import pytest

from services.core.db import attempts, cancellation, claims
from services.core.db.session import Session
from services.core.jobs import Job, JobState
from tests.core.db.job_rows import POLICY, Jobs


def cancel(at_hand: Jobs, job_id: object) -> Job | None:
    return at_hand.database.run(cancellation.request_cancel, job_id, retention_hours=2, actor="command")  # type: ignore[arg-type]


def test_a_waiting_job_is_cancelled_at_once_and_never_claimed(jobs_at_hand: Jobs) -> None:
    job_id = jobs_at_hand.accept()
    job = cancel(jobs_at_hand, job_id)
    assert job is not None
    assert (job.state, job.result_file) == (JobState.CANCELLED, None)
    assert job.finished_at is not None
    assert job.expires_at is not None
    assert (job.expires_at - job.finished_at).total_seconds() == 2 * 3600
    assert jobs_at_hand.claim() is None


def test_a_running_job_gets_the_flag_and_its_worker_learns_of_it(jobs_at_hand: Jobs) -> None:
    claim = jobs_at_hand.claimed()
    job = cancel(jobs_at_hand, claim.job_id)
    assert job is not None
    assert (job.state, job.cancel_requested) == (JobState.RUNNING, True)
    beat = jobs_at_hand.database.run(claims.heartbeat, claim, lease_seconds=60, progress_percent=0)
    assert beat.cancel_requested
    # It can neither succeed nor be given back any more.
    assert not jobs_at_hand.succeed(claim)
    assert not jobs_at_hand.database.run(claims.release, claim)
    assert jobs_at_hand.database.run(claims.cancel_claimed, claim, retention_hours=1)
    assert jobs_at_hand.state(claim.job_id) is JobState.CANCELLED


def test_a_running_job_whose_worker_died_is_cancelled_by_the_reaper(jobs_at_hand: Jobs) -> None:
    claim = jobs_at_hand.claimed(lease_seconds=0)
    cancel(jobs_at_hand, claim.job_id)
    assert jobs_at_hand.reap() == [attempts.LostAttempt(claim.job_id, claim.token, JobState.CANCELLED, claim.model_id)]
    assert jobs_at_hand.claim() is None


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED])
def test_a_finished_job_stays_as_it_is(jobs_at_hand: Jobs, state: JobState) -> None:
    job_id = jobs_at_hand.accept(state=state.value)
    before = jobs_at_hand.job(job_id)
    assert cancel(jobs_at_hand, job_id) == before


def test_asking_twice_is_once(jobs_at_hand: Jobs) -> None:
    claim = jobs_at_hand.claimed()
    cancel(jobs_at_hand, claim.job_id)
    cancel(jobs_at_hand, claim.job_id)
    assert jobs_at_hand.kinds(claim.job_id) == ["accepted", "claimed", "cancel_requested"]


def test_a_job_that_does_not_exist_is_none(jobs_at_hand: Jobs) -> None:
    assert cancel(jobs_at_hand, uuid4()) is None


def test_a_claim_passes_over_a_job_that_is_being_cancelled(jobs_at_hand: Jobs) -> None:
    # Given a cancel whose transaction is still open
    job_id = jobs_at_hand.accept()
    cancelled, may_commit = threading.Event(), threading.Event()

    def slowly(session: Session) -> None:
        cancellation.request_cancel(session, job_id, retention_hours=1, actor="command")
        cancelled.set()
        may_commit.wait(20)

    thread = threading.Thread(target=lambda: jobs_at_hand.database.run(slowly))
    thread.start()
    assert cancelled.wait(20)
    # When a worker claims meanwhile, Then it neither waits nor gets the job
    assert jobs_at_hand.claim() is None
    may_commit.set()
    thread.join(20)
    assert jobs_at_hand.state(job_id) is JobState.CANCELLED


@pytest.mark.parametrize("first", ["cancel", "finish"])
def test_of_a_cancel_and_a_finish_at_once_the_first_counts(jobs_at_hand: Jobs, first: str) -> None:
    # Given a running job, and one of the two still in its transaction
    claim = jobs_at_hand.claimed()
    begun, may_commit = threading.Event(), threading.Event()

    def succeed(session: Session) -> bool:
        return claims.succeed(
            session,
            claim,
            result_file="r",
            result_bytes=1,
            result_sha256="0" * 64,
            stage_seconds={},
            retention_hours=1,
        )

    def ask(session: Session) -> object:
        return cancellation.request_cancel(session, claim.job_id, retention_hours=1, actor="command")

    def slowly(session: Session) -> None:
        ask(session) if first == "cancel" else succeed(session)
        begun.set()
        may_commit.wait(20)

    thread = threading.Thread(target=lambda: jobs_at_hand.database.run(slowly))
    thread.start()
    assert begun.wait(20)
    answers: list[object] = []
    second = threading.Thread(
        target=lambda: answers.append(jobs_at_hand.database.run(succeed if first == "cancel" else ask))
    )
    # When the other comes, it waits for the first
    second.start()
    may_commit.set()
    thread.join(20)
    second.join(20)
    # Then the second is told what the first did
    if first == "cancel":
        assert answers == [False]
        assert jobs_at_hand.database.run(claims.cancel_claimed, claim, retention_hours=1)
        assert jobs_at_hand.state(claim.job_id) is JobState.CANCELLED
    else:
        [job] = answers
        assert isinstance(job, Job)
        assert (job.state, job.result_file) == (JobState.SUCCEEDED, "r")


def test_a_lost_attempt_of_a_cancelled_job_is_not_queued_again(jobs_at_hand: Jobs) -> None:
    claim = jobs_at_hand.claimed()
    cancel(jobs_at_hand, claim.job_id)
    lost = jobs_at_hand.database.run(attempts.lose_attempt, claim, reason="it crashed", policy=POLICY)
    assert lost is JobState.CANCELLED
