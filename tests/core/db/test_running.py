"""Heartbeats and the end of an attempt: every write is a compare-and-set on the claim's token."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from services.core.db import attempts, claims
from services.core.jobs import Claim, JobErrorCode, JobState
from tests.core.db.job_rows import LEASE_SECONDS, MODEL, POLICY, Jobs, ago
from tests.deployment import wait_for

Ending = Callable[[Jobs, Claim], object]


def fail(at_hand: Jobs, claim: Claim, reason: str = "why") -> bool:
    return at_hand.database.run(claims.fail, claim, code=JobErrorCode.DECOMPRESSION, reason=reason, retention_hours=1)


def cancel(at_hand: Jobs, claim: Claim) -> bool:
    return at_hand.database.run(claims.cancel_claimed, claim, retention_hours=1)


def lose(at_hand: Jobs, claim: Claim, policy: attempts.RetryPolicy = POLICY) -> JobState | None:
    return at_hand.database.run(attempts.lose_attempt, claim, reason="it crashed", policy=policy)


def release(at_hand: Jobs, claim: Claim) -> bool:
    return at_hand.database.run(claims.release, claim)


def beat(at_hand: Jobs, claim: Claim, percent: int = 0, lease_seconds: float = LEASE_SECONDS) -> claims.Heartbeat:
    return at_hand.database.run(claims.heartbeat, claim, lease_seconds=lease_seconds, progress_percent=percent)


ENDINGS: dict[str, Ending] = {
    "succeed": Jobs.succeed,
    "fail": fail,
    "cancel": cancel,
    "lose": lose,
    "release": release,
}


# --- Heartbeats ----------------------------------------------------------------------------------------------


def test_a_heartbeat_extends_the_lease(jobs_at_hand: Jobs) -> None:
    # Given a claim whose lease is over, but which nobody took back
    claim = jobs_at_hand.claimed(lease_seconds=0)
    # When its worker is heard, Then the lease holds again and the janitor leaves it
    assert beat(jobs_at_hand, claim) == claims.Heartbeat(held=True, cancel_requested=False)
    assert jobs_at_hand.reap() == []
    assert jobs_at_hand.state(claim.job_id) is JobState.RUNNING


def test_progress_never_goes_back_within_an_attempt(jobs_at_hand: Jobs) -> None:
    claim = jobs_at_hand.claimed()
    seen = []
    for percent in (5, 50, 20, 60):
        beat(jobs_at_hand, claim, percent)
        seen.append(jobs_at_hand.job(claim.job_id).progress_percent)
    assert seen == [5, 50, 50, 60]


@pytest.mark.parametrize("ending", ["lose", "release"])
def test_progress_never_goes_back_over_attempts(jobs_at_hand: Jobs, ending: str) -> None:
    """A client that shows it as a bar would otherwise see the bar shrink."""
    claim = jobs_at_hand.claimed()
    beat(jobs_at_hand, claim, 60)
    ENDINGS[ending](jobs_at_hand, claim)
    again = jobs_at_hand.claim()
    assert again is not None
    seen = [jobs_at_hand.job(claim.job_id).progress_percent]
    for percent in (5, 59, 61):
        beat(jobs_at_hand, again, percent)
        seen.append(jobs_at_hand.job(claim.job_id).progress_percent)
    assert seen == [60, 60, 60, 61]


def test_a_heartbeat_tells_that_the_job_is_to_be_cancelled(jobs_at_hand: Jobs) -> None:
    claim = jobs_at_hand.claimed(cancel_requested=True)
    assert beat(jobs_at_hand, claim) == claims.Heartbeat(held=True, cancel_requested=True)


def test_a_worker_whose_lease_was_taken_is_fenced(jobs_at_hand: Jobs) -> None:
    # Given a worker that was silent for too long, and another that runs the job now
    silent = jobs_at_hand.claimed(lease_seconds=0)
    assert jobs_at_hand.reap() == [attempts.LostAttempt(silent.job_id, silent.token, JobState.QUEUED, silent.model_id)]
    other = jobs_at_hand.claim()
    assert other is not None
    # When the silent one is heard again, Then nothing it does counts
    assert beat(jobs_at_hand, silent, 99) == claims.Heartbeat(held=False, cancel_requested=False)
    assert not any(ending(jobs_at_hand, silent) for ending in ENDINGS.values())
    row = jobs_at_hand.row(silent.job_id)
    assert (row.claim_token, row.progress_percent, row.attempt) == (other.token, 0, 2)
    assert jobs_at_hand.succeed(other)


# --- Ends ----------------------------------------------------------------------------------------------------


def test_success_shows_the_result(jobs_at_hand: Jobs) -> None:
    # Given a job that went wrong once
    claim = jobs_at_hand.claimed(error_code=1, error_text="an earlier attempt")
    # When it succeeds
    assert jobs_at_hand.succeed(claim, retention_hours=2)
    # Then everything about the result is told
    job = jobs_at_hand.job(claim.job_id)
    assert (job.state, job.progress_percent) == (JobState.SUCCEEDED, 100)
    assert (job.error_code, job.error_text) == (JobErrorCode.NONE, "")
    assert job.result_file == f"{claim.job_id}.{claim.token}.pb"
    assert job.stage_seconds == {"model": 1.5}
    assert job.finished_at is not None
    assert job.expires_at is not None
    assert (job.expires_at - job.finished_at).total_seconds() == 2 * 3600
    row = jobs_at_hand.row(claim.job_id)
    assert (row.claim_token, row.lease_expires_at, row.result_bytes) == (None, None, 5)


def test_a_verdict_is_told_with_its_code_and_reason(jobs_at_hand: Jobs) -> None:
    claim = jobs_at_hand.claimed()
    beat(jobs_at_hand, claim, 30)
    assert fail(jobs_at_hand, claim, "not gzip")
    job = jobs_at_hand.job(claim.job_id)
    assert (job.state, job.progress_percent, job.error_text) == (JobState.FAILED, 30, "not gzip")
    assert job.error_code is JobErrorCode.DECOMPRESSION
    assert job.result_file is None
    assert job.expires_at is not None


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("a\0b", "a\ufffdb"),
        ("file \udcff", "file ?"),
        ("ünïcode \U0001f480", "ünïcode \U0001f480"),
        ("x" * 100_000, None),
    ],
    ids=["nul", "surrogate", "unicode", "long"],
)
def test_a_reason_that_a_model_made_up_can_always_be_kept(jobs_at_hand: Jobs, reason: str, kept: str | None) -> None:
    claim = jobs_at_hand.claimed()
    assert fail(jobs_at_hand, claim, reason)
    assert jobs_at_hand.job(claim.job_id).error_text == (kept or reason)


def test_a_job_to_be_cancelled_cannot_succeed(jobs_at_hand: Jobs) -> None:
    claim = jobs_at_hand.claimed(cancel_requested=True)
    assert not jobs_at_hand.succeed(claim)
    assert jobs_at_hand.state(claim.job_id) is JobState.RUNNING
    assert cancel(jobs_at_hand, claim)
    job = jobs_at_hand.job(claim.job_id)
    assert (job.state, job.result_file) == (JobState.CANCELLED, None)
    assert job.finished_at is not None
    assert job.expires_at is not None


@pytest.mark.parametrize("first", ["succeed", "fail", "cancel", "lose", "release"])
@pytest.mark.parametrize("second", ENDINGS)
def test_of_two_ends_of_one_claim_the_first_counts(jobs_at_hand: Jobs, first: str, second: str) -> None:
    claim = jobs_at_hand.claimed()
    assert ENDINGS[first](jobs_at_hand, claim)
    state = jobs_at_hand.state(claim.job_id)
    assert not ENDINGS[second](jobs_at_hand, claim)
    assert not beat(jobs_at_hand, claim).held
    assert jobs_at_hand.state(claim.job_id) is state


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_token_that_is_not_the_claims_ends_nothing(jobs_at_hand: Jobs, ending: str) -> None:
    claim = jobs_at_hand.claimed()
    before = jobs_at_hand.job(claim.job_id)
    assert not ENDINGS[ending](jobs_at_hand, replace(claim, token=uuid4()))
    assert not ENDINGS[ending](jobs_at_hand, replace(claim, job_id=uuid4()))
    assert jobs_at_hand.job(claim.job_id) == before


# --- Lost and released attempts ------------------------------------------------------------------------------


def test_lost_attempts_wait_twice_as_long_each_time(jobs_at_hand: Jobs) -> None:
    # Given a job that loses every attempt
    policy = attempts.RetryPolicy(attempt_limit=99, retry_delay_seconds=2, retention_hours=1)
    job_id = jobs_at_hand.accept()
    delays = []
    for _ in range(12):
        claim = jobs_at_hand.claim()
        assert claim is not None
        jobs_at_hand.change(job_id, started_at=ago(0))
        # When it is lost
        assert lose(jobs_at_hand, claim, policy) is JobState.QUEUED
        assert jobs_at_hand.claim() is None
        row = jobs_at_hand.row(job_id)
        assert row.started_at is not None
        delays.append(round((row.run_after - row.started_at).total_seconds()))
        jobs_at_hand.change(job_id, run_after=ago(0))
    # Then the wait doubles, up to a limit
    assert delays == [2, 4, 8, 16, 32, 64, 128, 256, 512, 512, 512, 512]


@pytest.mark.parametrize(("limit", "said"), [(1, "in 1 attempt;"), (3, "in 3 attempts;")])
def test_at_the_attempt_limit_the_job_fails_and_names_the_model(jobs_at_hand: Jobs, limit: int, said: str) -> None:
    policy = replace(POLICY, attempt_limit=limit)
    # Given a job that has lost all attempts but the last
    job_id = jobs_at_hand.accept()
    states = []
    while (claim := jobs_at_hand.claim()) is not None:
        states.append(lose(jobs_at_hand, claim, policy))
    # Then it failed with the last one, and says for which model and why
    assert states == [JobState.QUEUED] * (limit - 1) + [JobState.FAILED]
    job = jobs_at_hand.job(job_id)
    assert (job.state, job.attempt, job.error_code) == (JobState.FAILED, limit, JobErrorCode.INTERNAL)
    assert f"«{MODEL}» did not finish {said}" in job.error_text
    assert "it crashed" in job.error_text
    assert job.finished_at is not None
    assert job.expires_at is not None


def test_a_lost_attempt_of_a_job_to_be_cancelled_cancels_it(jobs_at_hand: Jobs) -> None:
    claim = jobs_at_hand.claimed(cancel_requested=True)
    assert lose(jobs_at_hand, claim) is JobState.CANCELLED


def test_a_lost_attempt_waits_for_a_heartbeat_that_is_under_way(jobs_at_hand: Jobs) -> None:
    # Given a heartbeat that has locked the row and not yet been committed
    claim = jobs_at_hand.claimed()
    with ThreadPoolExecutor(max_workers=1) as executor:
        losing: list[Future[JobState | None]] = []

        def beat_slowly(session: Session) -> None:
            claims.heartbeat(session, claim, lease_seconds=LEASE_SECONDS, progress_percent=10)
            # When the same worker tells that the attempt is lost
            losing.append(executor.submit(lose, jobs_at_hand, claim))
            wait_for(lambda: losing[0].done() or somebody_waits_for_a_lock(session), "the other transaction")

        jobs_at_hand.database.run(beat_slowly)
        # Then it is, once the heartbeat is through
        assert losing[0].result() is JobState.QUEUED
    assert jobs_at_hand.state(claim.job_id) is JobState.QUEUED


def somebody_waits_for_a_lock(session: Session) -> bool:
    # Not pg_stat_activity, which stays as it is until the asking transaction ends.
    return bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))


def test_a_released_attempt_does_not_count(jobs_at_hand: Jobs) -> None:
    # Given a job that one stopping worker after another gives back
    job_id = jobs_at_hand.accept()
    for _ in range(5):
        claim = jobs_at_hand.claim()
        assert claim is not None
        assert claim.attempt == 1
        assert release(jobs_at_hand, claim)
        # Then it waits again as if nothing had been
        row = jobs_at_hand.row(job_id)
        assert (row.state, row.attempt, row.claim_token) == (JobState.QUEUED, 0, None)
        assert row.lease_expires_at is None


def test_the_first_start_is_remembered_over_attempts(jobs_at_hand: Jobs) -> None:
    claim = jobs_at_hand.claimed()
    started_at = jobs_at_hand.job(claim.job_id).started_at
    lose(jobs_at_hand, claim)
    jobs_at_hand.claim()
    assert jobs_at_hand.job(claim.job_id).started_at == started_at
