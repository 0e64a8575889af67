"""What the janitor does to rows: leases taken back, jobs expired, files named for deletion."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import select, text

from services.core.db import attempts, claims, locks, retention
from services.core.db.session import Session
from services.core.db.tables import SegmentationJobRow as Row
from services.core.jobs import FINISHED, JobErrorCode, JobState, KeepInputs
from tests.core.db.job_rows import MODEL, POLICY, Jobs, ago

TEN_YEARS_SECONDS = 10 * 365 * 86_400.0
"""Longer than any database of these tests has been up."""


# --- Leases --------------------------------------------------------------------------------------------------


def test_only_leases_that_are_over_are_taken_back(jobs_at_hand: Jobs) -> None:
    # Given a running job with a lease, one whose lease is over, and jobs in every other state with an old lease
    held, silent = jobs_at_hand.claimed(), jobs_at_hand.claimed(lease_seconds=0)
    others = {
        jobs_at_hand.accept(state=state.value, lease_expires_at=ago(100)): state
        for state in set(JobState) - {JobState.RUNNING}
    }
    # When leases are taken back, Then it is that one
    assert jobs_at_hand.reap() == [attempts.LostAttempt(silent.job_id, silent.token, JobState.QUEUED, silent.model_id)]
    assert jobs_at_hand.state(held.job_id) is JobState.RUNNING
    assert {job_id: jobs_at_hand.state(job_id) for job_id in others} == others
    # and not twice
    assert jobs_at_hand.reap() == []


def test_no_lease_is_taken_back_within_one_lease_of_the_databases_start(jobs_at_hand: Jobs) -> None:
    # Given a lease that ended while the database was away: no worker could have renewed it
    silent = jobs_at_hand.claimed(lease_seconds=0)
    assert jobs_at_hand.reap(lease_seconds=TEN_YEARS_SECONDS) == []
    assert jobs_at_hand.state(silent.job_id) is JobState.RUNNING


def test_a_worker_that_dies_each_time_uses_up_the_attempts(jobs_at_hand: Jobs) -> None:
    # Given a job that kills every worker before it can say anything
    job_id = jobs_at_hand.accept()
    ends = []
    while jobs_at_hand.claim(lease_seconds=0) is not None:
        ends += [lost.state for lost in jobs_at_hand.reap()]
    # Then it fails at the limit
    assert ends == [JobState.QUEUED, JobState.QUEUED, JobState.FAILED]
    job = jobs_at_hand.job(job_id)
    assert job.error_code is JobErrorCode.INTERNAL
    assert f"«{MODEL}» did not finish in 3 attempts" in job.error_text
    assert "stopped answering" in job.error_text


def test_a_lease_of_a_job_to_be_cancelled_ends_in_cancelled(jobs_at_hand: Jobs) -> None:
    silent = jobs_at_hand.claimed(lease_seconds=0, cancel_requested=True)
    assert [lost.state for lost in jobs_at_hand.reap()] == [JobState.CANCELLED]
    assert jobs_at_hand.job(silent.job_id).expires_at is not None


def test_janitors_at_once_take_each_lease_back_once(jobs_at_hand: Jobs) -> None:
    # Given several leases that are over, and janitors that start at once
    silent = {jobs_at_hand.claimed(lease_seconds=0).job_id for _ in range(20)}
    at_once = threading.Barrier(4, timeout=30)

    def reap(_: int) -> list[UUID]:
        at_once.wait()
        return [lost.job_id for lost in jobs_at_hand.reap()]

    with ThreadPoolExecutor(4) as pool:
        taken = [job_id for some in pool.map(reap, range(4)) for job_id in some]
    assert sorted(taken) == sorted(silent)
    assert {jobs_at_hand.job(job_id).attempt for job_id in silent} == {1}


def test_the_back_off_of_a_silent_worker_counts_from_its_last_heartbeat(jobs_at_hand: Jobs) -> None:
    # Given a job whose lease of half a second ended five seconds ago
    policy = replace(POLICY, retry_delay_seconds=4)
    silent = jobs_at_hand.claimed(lease_seconds=-5)
    # When it is taken back, Then that silence was longer than the first back-off
    assert [lost.state for lost in jobs_at_hand.reap(0.5, policy)] == [JobState.QUEUED]
    again = jobs_at_hand.claim(lease_seconds=-5)
    assert again is not None
    assert (again.job_id, again.attempt) == (silent.job_id, 2)
    # but not longer than the second, which is twice as long
    assert [lost.state for lost in jobs_at_hand.reap(0.5, policy)] == [JobState.QUEUED]
    assert jobs_at_hand.claim() is None


def test_a_lease_that_cannot_be_taken_back_names_the_backend_that_holds_it_up(jobs_at_hand: Jobs) -> None:
    # Given leases that ended long ago, the row of one of them locked by a transaction that does not end
    locked, free = jobs_at_hand.claimed(lease_seconds=-70), jobs_at_hand.claimed(lease_seconds=-70)
    recent = jobs_at_hand.claimed(lease_seconds=-50)

    def held_up() -> list[attempts.HeldUpLease]:
        return jobs_at_hand.database.run(attempts.held_up_leases, lease_seconds=60)

    def while_locked(session: Session) -> tuple[int, list[attempts.HeldUpLease]]:
        for claim in (locked, recent):
            session.execute(select(Row.id).where(Row.id == claim.job_id).with_for_update())
        [pid] = session.execute(text("SELECT pg_backend_pid()")).scalars()
        assert [lost.job_id for lost in jobs_at_hand.reap()] == [free.job_id]
        return pid, held_up()

    # Then it is named, with that backend, until it is over
    pid, found = jobs_at_hand.database.run(while_locked)
    assert found == [attempts.HeldUpLease(locked.job_id, pid)]
    assert held_up() == []


def test_one_janitor_leads_at_a_time(jobs_at_hand: Jobs) -> None:
    database, which, other = jobs_at_hand.database, locks.Lock.JANITOR, locks.Lock.TIDYING

    def lead_and_look(session: Session) -> tuple[bool, bool, bool]:
        return (
            locks.try_lock(session, which),
            database.run(locks.try_lock, which),
            database.run(locks.try_lock, other),
        )

    # While one leads, another does not, though it may lead something else
    assert database.run(lead_and_look) == (True, False, True)
    # and once it has ended, another can
    assert database.run(locks.try_lock, which)


# --- Expiry --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", JobState)
def test_finished_jobs_expire_when_their_time_has_come(jobs_at_hand: Jobs, state: JobState) -> None:
    past = jobs_at_hand.accept(state=state.value, expires_at=ago(1))
    to_come = jobs_at_hand.accept(state=state.value, expires_at=ago(-3600))
    timeless = jobs_at_hand.accept(state=state.value)
    assert jobs_at_hand.database.run(retention.expire) == (1 if state in FINISHED else 0)
    assert jobs_at_hand.state(past) is (JobState.EXPIRED if state in FINISHED else state)
    assert jobs_at_hand.state(to_come) is state
    assert jobs_at_hand.state(timeless) is state


@pytest.mark.parametrize("state", JobState)
def test_only_a_succeeded_job_can_expire_at_once(jobs_at_hand: Jobs, state: JobState) -> None:
    job_id = jobs_at_hand.accept(state=state.value, expires_at=ago(-3600))
    jobs_at_hand.database.run(retention.expire_now, job_id)
    assert jobs_at_hand.state(job_id) is (JobState.EXPIRED if state is JobState.SUCCEEDED else state)


# --- Files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "spent"),
    [
        (KeepInputs.NEVER, {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED}),
        (KeepInputs.FAILED, {JobState.SUCCEEDED, JobState.CANCELLED, JobState.EXPIRED}),
        (KeepInputs.ALWAYS, {JobState.EXPIRED}),
    ],
)
def test_inputs_go_by_policy_and_results_when_expired(
    jobs_at_hand: Jobs, keep: KeepInputs, spent: set[JobState]
) -> None:
    # Given a job with an input and a result in every state
    by_state = {state: jobs_at_hand.accept(state=state.value, result_file=f"r-{state}") for state in JobState}
    # When the janitor asks what can go
    deletable = jobs_at_hand.database.run(retention.deletable_files, keep)
    # Then it is the inputs that the policy lets go, and the result of the expired job
    assert {files.job_id: files for files in deletable} == {
        by_state[state]: retention.DeletableFiles(
            by_state[state],
            f"{by_state[state]}.pb",
            f"r-{state}" if state is JobState.EXPIRED else None,
        )
        for state in spent
    }
    # and once they are forgotten, nothing of it is named again
    jobs_at_hand.database.run(retention.forget_files, deletable)
    assert jobs_at_hand.database.run(retention.deletable_files, keep) == []
    for state, job_id in by_state.items():
        job = jobs_at_hand.job(job_id)
        assert (job.input_file is None) == (state in spent)
        assert (job.result_file is None) == (state is JobState.EXPIRED)


def test_what_was_kept_goes_when_the_job_expires(jobs_at_hand: Jobs) -> None:
    # Given a failed job whose input is kept
    claim = jobs_at_hand.claimed()
    database = jobs_at_hand.database
    database.run(claims.fail, claim, code=JobErrorCode.INTERNAL, reason="why", retention_hours=0)
    assert database.run(retention.deletable_files, KeepInputs.FAILED) == []
    # When it expires, Then the input can go
    assert database.run(retention.expire) == 1
    (files,) = database.run(retention.deletable_files, KeepInputs.FAILED)
    assert (files.input_file, files.result_file) == (claim.input_file, None)


def test_a_succeeded_jobs_input_goes_while_its_result_stays(jobs_at_hand: Jobs) -> None:
    claim = jobs_at_hand.claimed()
    jobs_at_hand.succeed(claim)
    (files,) = jobs_at_hand.database.run(retention.deletable_files, KeepInputs.NEVER)
    jobs_at_hand.database.run(retention.forget_files, [files])
    job = jobs_at_hand.job(claim.job_id)
    assert (job.input_file, job.result_file) == (None, f"{claim.job_id}.{claim.token}.pb")


def test_one_round_names_a_limited_number_of_files(jobs_at_hand: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "FILES_PER_ROUND", 3)
    for _ in range(5):
        jobs_at_hand.accept(state=JobState.EXPIRED.value)
    rounds = []
    while deletable := jobs_at_hand.database.run(retention.deletable_files, KeepInputs.NEVER):
        rounds.append(len(deletable))
        jobs_at_hand.database.run(retention.forget_files, deletable)
    assert rounds == [3, 2]


def test_forgetting_nothing_changes_nothing(jobs_at_hand: Jobs) -> None:
    job_id = jobs_at_hand.accept()
    jobs_at_hand.database.run(retention.forget_files, [])
    assert jobs_at_hand.job(job_id).input_file == f"{job_id}.pb"
