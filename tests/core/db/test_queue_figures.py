"""What Prometheus is told of the queue and of pools of workers."""

import pytest
from sqlalchemy import delete, func, text, update

from services.core.db import workers
from services.core.db.pool_figures import PoolFigures, obstacle_to
from services.core.db.queue_figures import QueueFigures, queue_figures
from services.core.db.tables import WorkerRow
from services.core.jobs import JobState
from services.core.pools import Pool, PoolDevice
from tests.core.db.job_rows import MODEL, Jobs


@pytest.fixture
def at_hand(jobs_at_hand: Jobs) -> Jobs:
    jobs_at_hand.database.run(lambda session: session.execute(delete(WorkerRow)))
    return jobs_at_hand


def figures(at_hand: Jobs) -> QueueFigures:
    return at_hand.database.run(queue_figures)


def test_jobs_are_counted_by_model_and_state(at_hand: Jobs) -> None:
    # Given jobs of several states, one of which backs off
    at_hand.succeed(at_hand.claimed())
    at_hand.claimed()
    at_hand.change(at_hand.accept(), created_at=func.now() - text("interval '90 seconds'"))
    at_hand.accept(run_after=func.now() + text("interval '1 hour'"))
    at_hand.accept(state=JobState.EXPIRED.value)
    # When they are counted
    found = figures(at_hand)
    # Then each is, but what has expired
    assert MODEL in found.models
    assert found.jobs == {
        (MODEL, JobState.QUEUED): 2,
        (MODEL, JobState.RUNNING): 1,
        (MODEL, JobState.SUCCEEDED): 1,
    }
    assert found.ready == 1
    assert found.oldest_queued_seconds[MODEL] == pytest.approx(90, abs=30)


def test_a_pool_without_workers_is_seen_to_have_none(at_hand: Jobs) -> None:
    # Given a job that one of two pools leaves to the other
    at_hand.accept()
    small, big = Pool("small", except_models=(MODEL,), device=PoolDevice.CPU), Pool("big", models=(MODEL,))
    for worker, pool in (("a", big), ("b", big), ("c", small)):
        at_hand.database.run(workers.tell, worker, pool, [])
    assert figures(at_hand).pools == [PoolFigures("big", 2, 1), PoolFigures("small", 1, 0)]
    # When one worker of the other ends, and its last one falls silent
    at_hand.database.run(workers.leave, "a")
    silence = text(f"interval '{workers.SILENT_SECONDS + 5} seconds'")
    late = update(WorkerRow).where(WorkerRow.name == "b").values(seen_at=func.now() - silence)
    at_hand.database.run(lambda session: session.execute(late))
    # Then that pool has work, and nobody
    assert figures(at_hand).pools == [PoolFigures("big", 0, 1), PoolFigures("small", 1, 0)]
    # and one that comes again counts again
    at_hand.database.run(workers.tell, "a", big, [])
    assert figures(at_hand).pools[0] == PoolFigures("big", 1, 1)


def test_work_of_a_pool_whose_first_worker_never_came_is_seen(at_hand: Jobs) -> None:
    # Given two ready jobs, and one that backs off
    at_hand.accept()
    at_hand.accept()
    at_hand.accept(run_after=func.now() + text("interval '1 hour'"))
    # When nobody is there, or only a pool that leaves the model to another, Then it is out of reach
    assert figures(at_hand).out_of_reach == {MODEL: 2}
    at_hand.database.run(workers.tell, "a", Pool("small", except_models=(MODEL,)), [])
    assert figures(at_hand).out_of_reach == {MODEL: 2}
    # When the other's first worker comes, Then nothing is, until that one ends
    at_hand.database.run(workers.tell, "b", Pool("big", models=(MODEL,)), [])
    assert figures(at_hand).out_of_reach == {}
    at_hand.database.run(workers.leave, "b")
    assert figures(at_hand).out_of_reach == {MODEL: 2}


def test_a_pool_that_was_taken_away_is_forgotten(at_hand: Jobs) -> None:
    at_hand.database.run(workers.tell, "old", Pool("gone"), [])
    age = text(f"interval '{workers.FORGOTTEN_SECONDS + 60} seconds'")
    aged = update(WorkerRow).values(seen_at=func.now() - age)
    at_hand.database.run(lambda session: session.execute(aged))
    at_hand.database.run(workers.tell, "new", Pool("here"), [])
    at_hand.database.run(workers.forget_silent)
    assert figures(at_hand).pools == [PoolFigures("here", 1, 0)]


def test_a_job_that_nobody_takes_says_why(at_hand: Jobs) -> None:
    def obstacle() -> str:
        return at_hand.database.run(obstacle_to, MODEL)

    assert obstacle() == "No worker is running; start one."
    # Given workers of pools that leave the model to others
    at_hand.database.run(workers.tell, "a", Pool("small", except_models=(MODEL,)), [])
    at_hand.database.run(workers.tell, "b", Pool("other", models=("other",)), [])
    assert obstacle() == "No pool of workers that is running runs this model (other, small); start one that does."
    # When one comes that runs it, Then nothing stands in the way, until it ends
    at_hand.database.run(workers.tell, "c", Pool("all"), [])
    assert obstacle() == ""
    at_hand.database.run(workers.leave, "c")
    assert obstacle().startswith("No pool")
