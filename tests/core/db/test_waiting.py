"""A job's place in the queue, and how long it still takes."""

import pytest

from services.core.catalogue import ModelFamily, ModelVersion
from services.core.db import catalogue, job_list, waiting
from services.core.jobs import JobState, JobStatus, Priority
from tests.core.db.job_rows import MODEL, Jobs, ago

OTHER_MODEL = "Heart"


@pytest.fixture
def two_models(jobs_at_hand: Jobs) -> Jobs:
    jobs_at_hand.database.run(catalogue.store_family, ModelFamily("Heart", versions=(ModelVersion(OTHER_MODEL),)))
    return jobs_at_hand


def ran_for(at_hand: Jobs, seconds: float, model: str = MODEL, finished_ago: float = 60) -> None:
    """A job of the past."""
    at_hand.accept(model_id=model, state=JobState.SUCCEEDED.value, run_seconds=seconds, finished_at=ago(finished_ago))


def status(at_hand: Jobs, job_id: object) -> JobStatus:
    job = at_hand.job(job_id)  # type: ignore[arg-type]
    return at_hand.database.run(waiting.status_of, job)


def test_places_follow_the_order_of_claims(jobs_at_hand: Jobs) -> None:
    batch = jobs_at_hand.accept(Priority.BATCH, created_at=ago(50))
    young = jobs_at_hand.accept(created_at=ago(10))
    old = jobs_at_hand.accept(created_at=ago(20))
    places = {job_id: status(jobs_at_hand, job_id).queue_position for job_id in (batch, young, old)}
    assert places == {old: 1, young: 2, batch: 3}
    order = [claim.job_id for _ in range(3) if (claim := jobs_at_hand.claim()) is not None]
    assert order == sorted(places, key=lambda job_id: places[job_id] or 0)
    assert status(jobs_at_hand, old).queue_position is None


def test_without_history_there_is_no_estimate(two_models: Jobs) -> None:
    ran_for(two_models, 10, OTHER_MODEL)
    assert status(two_models, two_models.accept()).remaining_seconds is None


def test_an_estimate_is_the_median_of_the_last_runs(jobs_at_hand: Jobs) -> None:
    # Given twenty recent runs, some slow, and older ones on a slower machine
    for seconds in [10.0] * 12 + [400.0] * 8:
        ran_for(jobs_at_hand, seconds)
    for _ in range(30):
        ran_for(jobs_at_hand, 1000, finished_ago=9999)
    assert status(jobs_at_hand, jobs_at_hand.accept()).remaining_seconds == 10


def test_a_job_waits_for_those_before_it(two_models: Jobs) -> None:
    # Given runs of 10 s and 100 s, one of the latter before this job, and one that runs for 4 s already
    ran_for(two_models, 10)
    ran_for(two_models, 100, OTHER_MODEL)
    running = two_models.claimed()
    two_models.change(running.job_id, claimed_at=ago(4))
    two_models.accept(model_id=OTHER_MODEL, created_at=ago(30))
    job_id = two_models.accept()
    # Then it waits for 6 s, for 100 s, and takes 10 s itself
    assert status(two_models, job_id).remaining_seconds == pytest.approx(116, abs=2)
    # and with a second worker, half as long before its own turn
    second = two_models.accept(created_at=ago(40))
    two_models.change(second, state=JobState.RUNNING.value, claimed_at=ago(4), worker="w2")
    assert status(two_models, job_id).remaining_seconds == pytest.approx((6 + 6 + 100) / 2 + 10, abs=2)
    # but not where the one worker has both
    two_models.change(second, worker="w")
    assert status(two_models, job_id).remaining_seconds == pytest.approx(6 + 6 + 100 + 10, abs=2)


def test_a_running_job_has_what_is_left_of_its_own_run(jobs_at_hand: Jobs) -> None:
    ran_for(jobs_at_hand, 10)
    claim = jobs_at_hand.claimed()
    jobs_at_hand.change(claim.job_id, claimed_at=ago(4))
    assert status(jobs_at_hand, claim.job_id).remaining_seconds == pytest.approx(6, abs=1.5)
    jobs_at_hand.change(claim.job_id, claimed_at=ago(40))
    assert status(jobs_at_hand, claim.job_id).remaining_seconds == 0


def test_a_finished_job_waits_for_nothing(jobs_at_hand: Jobs) -> None:
    ran_for(jobs_at_hand, 10)
    claim = jobs_at_hand.claimed()
    jobs_at_hand.succeed(claim)
    found = status(jobs_at_hand, claim.job_id)
    assert (found.queue_position, found.remaining_seconds) == (None, None)
    assert [event.kind.value for event in found.events] == ["accepted", "claimed", "succeeded"]


def test_success_adds_to_the_history_what_was_not_waiting_for_the_device(jobs_at_hand: Jobs) -> None:
    claim = jobs_at_hand.claimed()
    jobs_at_hand.change(claim.job_id, claimed_at=ago(65))
    jobs_at_hand.succeed(claim, stage_seconds={"wait": 40.0, "model": 1.5})
    assert jobs_at_hand.row(claim.job_id).run_seconds == pytest.approx(25, abs=2)


def test_the_list_holds_every_running_job_and_says_how_many_more_wait(
    jobs_at_hand: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_list, "MOST_QUEUED", 2)
    # Given batch jobs that run, behind more interactive ones that wait than are listed
    running = [jobs_at_hand.accept(Priority.BATCH, state=JobState.RUNNING.value, worker=f"w{n}") for n in range(3)]
    waiting_jobs = [jobs_at_hand.accept(created_at=ago(50 - n)) for n in range(4)]
    # When they are listed
    found = jobs_at_hand.database.run(job_list.listed_jobs)
    # Then all that run are there, then those that are claimed next, and the others are counted
    listed = [line.job.id for line in found.jobs]
    assert set(listed[:3]) == set(running)
    assert listed[3:] == waiting_jobs[:2]
    assert (found.running, found.queued, found.more_queued) == (3, 4, 2)
