"""Two pools of workers beside each other: every job is run, by the pool that runs its model."""

from pathlib import Path

import pytest

from services.core.jobs import JobState
from tests.conftest import MakeDeployment
from tests.deployment import LIMIT_SECONDS, Deployment, wait_for
from tests.end_to_end.jobs_in_hand import state_of
from tests.faults.verdicts import assert_done_once
from tests.slow_model import SLOW_MODEL, Gate, sleeping, wait_until_running, with_slow_model

JOBS = 4


@pytest.fixture
def deployment(own_deployment: MakeDeployment, tmp_path: Path) -> Deployment:
    """One pool for the slow model, one for all others."""
    deployment = with_slow_model(own_deployment(), tmp_path).import_sample().start_api()
    slow = {"SEGINT_POOL_NAME": "slow", "SEGINT_POOL_MODELS": SLOW_MODEL}
    rest = {"SEGINT_POOL_NAME": "rest", "SEGINT_POOL_EXCEPT_MODELS": SLOW_MODEL}
    return deployment.start_worker("slow", environment=slow).start_worker("rest", environment=rest)


def test_each_pool_runs_its_models_and_no_others(deployment: Deployment) -> None:
    # Given jobs of both, whose doorbells either pool may answer
    slow = [deployment.submit(sleeping(0), SLOW_MODEL) for _ in range(JOBS)]
    rest = [deployment.submit() for _ in range(JOBS)]
    # Then all are run, each by a worker of its pool
    assert_done_once(deployment, slow)
    for job_id in rest:
        assert deployment.finished(job_id).percent == 100
    ran_by = [{deployment.row(job_id).worker for job_id in jobs} for jobs in (slow, rest)]
    assert [len(workers) for workers in ran_by] == [1, 1]
    assert ran_by[0] != ran_by[1]

    # And what no pool runs waits until one does
    deployment.stop("slow")
    job_id = deployment.submit(sleeping(0), SLOW_MODEL)
    other = deployment.submit()
    assert deployment.finished(other).percent == 100
    assert state_of(deployment, job_id) == JobState.QUEUED
    page = deployment.get(f"/api/segint/v1/jobs/{job_id}").json()
    assert page["obstacle"] == "No pool of workers that is running runs this model (rest); start one that does."
    deployment.start_again("slow")
    assert_done_once(deployment, [job_id])


def test_a_job_that_was_not_rung_for_may_finish_when_its_worker_is_told_to_stop(deployment: Deployment) -> None:
    with Gate(deployment) as gate:
        # Given a worker that found its job by looking for it: nobody rang
        deployment.stop("api")
        deployment.start_api(environment={"SEGINT_REDIS_URL": "redis://127.0.0.1:9/0"})
        running = deployment.submit(gate.request, SLOW_MODEL)
        wait_until_running(deployment, running)
        # When it is told to stop
        worker = deployment.processes.pop("slow")
        worker.terminate()
        wait_for(lambda: "that nobody rang for" in deployment.log_of("slow").read_text(), "the worker to wait for it")
        # Then the job is not cut short
        assert state_of(deployment, running) == JobState.RUNNING
    assert worker.wait(LIMIT_SECONDS) == 0
    assert_done_once(deployment, [running])
    assert deployment.row(running).attempt == 1
