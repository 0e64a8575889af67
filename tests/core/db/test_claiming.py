"""Accepting and claiming: which job is next, and that it is one worker's alone."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import IntegrityError

from services.core.db import claims, jobs
from services.core.db.session import Session
from services.core.jobs import JobErrorCode, JobState, Priority
from tests.core.db.job_rows import LEASE_SECONDS, MODEL, Jobs, ago, new_job

THREADS = 8
MANY = 200


def test_an_accepted_job_waits_and_is_told_whole(jobs_at_hand: Jobs) -> None:
    # Given a job as the door makes it
    job_id = uuid4()
    accepted = jobs_at_hand.database.run(jobs.accept, new_job(job_id, Priority.BATCH))
    # Then it is found as it was accepted
    assert jobs_at_hand.job(job_id) == accepted
    assert (accepted.state, accepted.priority, accepted.attempt) == (JobState.QUEUED, Priority.BATCH, 0)
    assert (accepted.progress_percent, accepted.error_code, accepted.error_text) == (0, JobErrorCode.NONE, "")
    assert (accepted.input_file, accepted.result_file) == (f"{job_id}.pb", None)
    assert accepted.created_at.utcoffset() is not None
    assert (accepted.started_at, accepted.finished_at, accepted.expires_at) == (None, None, None)
    assert accepted.cancel_requested is False
    row = jobs_at_hand.row(job_id)
    assert (row.input_bytes, row.voxel_count, row.client_version) == (10, 2**33, "tests 1.0")
    assert row.remarks == "spacing outside the constraints"


def test_a_job_of_an_unknown_model_or_with_a_taken_identifier_is_no_row(jobs_at_hand: Jobs) -> None:
    with pytest.raises(IntegrityError):
        jobs_at_hand.database.run(jobs.accept, new_job(uuid4(), model_id="nowhere"))
    taken = jobs_at_hand.accept()
    with pytest.raises(IntegrityError):
        jobs_at_hand.database.run(jobs.accept, new_job(taken))


def test_an_unknown_job_is_not_found(jobs_at_hand: Jobs) -> None:
    assert jobs_at_hand.database.run(jobs.find, uuid4()) is None


def test_nothing_is_claimed_of_an_empty_queue(jobs_at_hand: Jobs) -> None:
    assert jobs_at_hand.claim() is None


def test_a_claim_is_a_running_job_with_an_attempt_and_a_lease(jobs_at_hand: Jobs) -> None:
    job_id = jobs_at_hand.accept(created_at=ago(100))
    claim = jobs_at_hand.claim()
    assert claim is not None
    assert (claim.job_id, claim.model_id, claim.attempt) == (job_id, MODEL, 1)
    assert (claim.input_file, claim.priority) == (f"{job_id}.pb", Priority.INTERACTIVE)
    assert 100 <= claim.waited_seconds < 160
    row = jobs_at_hand.row(job_id)
    assert (row.state, row.claim_token, row.worker) == (JobState.RUNNING, claim.token, "w")
    assert row.started_at is not None
    assert row.lease_expires_at is not None
    assert (row.lease_expires_at - row.started_at).total_seconds() == LEASE_SECONDS


def test_priority_comes_before_age_and_age_before_the_rest(jobs_at_hand: Jobs) -> None:
    # Given jobs accepted in another order than they are wanted in
    last = jobs_at_hand.accept(Priority.BATCH, created_at=ago(10))
    second = jobs_at_hand.accept(created_at=ago(20))
    first = jobs_at_hand.accept(created_at=ago(30))
    third = jobs_at_hand.accept(Priority.BATCH, created_at=ago(1000))
    # Then they are claimed by priority, and of the same priority by age
    assert claim_all(jobs_at_hand) == [first, second, third, last]


def test_a_job_is_not_claimed_before_its_time(jobs_at_hand: Jobs) -> None:
    # Given an urgent job that has to wait, and one that has not
    later = jobs_at_hand.accept(run_after=ago(-3600))
    now = jobs_at_hand.accept(Priority.BATCH)
    assert jobs_at_hand.database.run(jobs.count_ready) == 1
    # When everything that can be is claimed, Then it is left, until its time has come
    assert claim_all(jobs_at_hand) == [now]
    jobs_at_hand.change(later, run_after=ago(0))
    assert claim_all(jobs_at_hand) == [later]
    assert jobs_at_hand.database.run(jobs.count_ready) == 0


def test_a_busy_worker_leaves_what_became_ready_just_now(jobs_at_hand: Jobs) -> None:
    # Given a job that is ready for a minute, and an older one that is ready again since a second
    waiting = jobs_at_hand.accept(created_at=ago(60), run_after=ago(60))
    jobs_at_hand.accept(created_at=ago(100), run_after=ago(1))
    # Then who leaves new ones to others takes the first alone, and the other once it has waited as well
    assert claim_all(jobs_at_hand, ready_for_seconds=30) == [waiting]
    assert len(claim_all(jobs_at_hand, ready_for_seconds=1)) == 1


def test_a_job_that_was_given_back_is_ready_anew(jobs_at_hand: Jobs) -> None:
    old = jobs_at_hand.accept(created_at=ago(60), run_after=ago(60))
    claim = jobs_at_hand.claim()
    assert claim is not None
    assert jobs_at_hand.database.run(claims.release, claim)
    assert claim_all(jobs_at_hand, ready_for_seconds=30) == []
    assert claim_all(jobs_at_hand) == [old]


def test_what_has_lost_an_attempt_is_not_run_beside_others_and_not_passed_over(jobs_at_hand: Jobs) -> None:
    tried = jobs_at_hand.accept(created_at=ago(60), attempt=1)
    untried = jobs_at_hand.accept()
    assert claim_all(jobs_at_hand, untried_only=True) == []
    assert claim_all(jobs_at_hand) == [tried, untried]
    other = jobs_at_hand.accept()
    assert claim_all(jobs_at_hand, untried_only=True) == [other]


def test_a_claim_may_be_for_interactive_jobs_only(jobs_at_hand: Jobs) -> None:
    jobs_at_hand.accept(Priority.BATCH, created_at=ago(60))
    interactive = jobs_at_hand.accept()
    assert claim_all(jobs_at_hand, least_priority=Priority.INTERACTIVE) == [interactive]


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.QUEUED])
def test_only_queued_jobs_are_claimed(jobs_at_hand: Jobs, state: JobState) -> None:
    jobs_at_hand.accept(state=state.value)
    assert jobs_at_hand.claim() is None
    assert jobs_at_hand.database.run(jobs.count_ready) == 0


def test_a_job_that_somebody_is_claiming_is_passed_over(jobs_at_hand: Jobs) -> None:
    # Given a claim of the first job that is not committed yet
    first, second = jobs_at_hand.accept(created_at=ago(10)), jobs_at_hand.accept()
    taken: list[UUID | None] = []

    def claim_and_look(session: Session) -> None:
        claim = claims.claim(session, worker="slow", lease_seconds=LEASE_SECONDS)
        taken.append(claim.job_id if claim else None)
        # When another worker claims meanwhile, Then it takes the second at once; a third finds nothing
        for _ in range(2):
            other = jobs_at_hand.claim()
            taken.append(other.job_id if other else None)

    jobs_at_hand.database.run(claim_and_look)
    assert taken == [first, second, None]


def test_many_workers_claim_each_job_once(jobs_at_hand: Jobs) -> None:
    # Given many jobs, and workers that start at once
    def accept_many(session: Session) -> list[UUID]:
        return [jobs.accept(session, new_job(uuid4())).id for _ in range(MANY)]

    accepted = jobs_at_hand.database.run(accept_many)
    at_once = threading.Barrier(THREADS, timeout=30)

    def work(_: int) -> list[UUID]:
        at_once.wait()
        return claim_all(jobs_at_hand)

    # When they claim until nothing is left
    with ThreadPoolExecutor(THREADS) as pool:
        claimed = [job_id for some in pool.map(work, range(THREADS)) for job_id in some]
    # Then each job was claimed, once, and its one attempt counted
    assert sorted(claimed) == sorted(accepted)
    assert jobs_at_hand.database.run(jobs.count_by_state)[JobState.RUNNING] == MANY
    assert {jobs_at_hand.job(job_id).attempt for job_id in accepted[:10]} == {1}


def test_the_queue_is_counted(jobs_at_hand: Jobs) -> None:
    database = jobs_at_hand.database
    assert database.run(jobs.count_by_state) == dict.fromkeys(JobState, 0)
    assert database.run(jobs.oldest_queued_seconds) == 0
    for state in JobState:
        jobs_at_hand.accept(state=state.value, created_at=ago(5000))
    jobs_at_hand.change(jobs_at_hand.accept(), created_at=ago(10))
    assert database.run(jobs.count_by_state) == dict.fromkeys(JobState, 1) | {JobState.QUEUED: 2}
    assert 5000 <= database.run(jobs.oldest_queued_seconds) < 5060


def claim_all(jobs_at_hand: Jobs, **conditions: Any) -> list[UUID]:
    claimed = []
    while (claim := jobs_at_hand.claim(**conditions)) is not None:
        claimed.append(claim.job_id)
    return claimed
