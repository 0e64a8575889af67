"""A worker with several jobs in hand is told to stop: each goes as far as it may."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from services.core.jobs import JobState
from tests.conftest import MakeDeployment
from tests.deployment import LIMIT_SECONDS, Deployment, wait_for
from tests.end_to_end.jobs_in_hand import state_of, wait_until_decoded
from tests.faults.verdicts import assert_done_once
from tests.slow_model import SLOW_MODEL, Gate, sleeping, wait_until_running, with_slow_model


@pytest.fixture
def deployment(own_deployment: MakeDeployment, tmp_path: Path) -> Deployment:
    """One worker that may be held while it decodes or encodes."""
    deployment = with_slow_model(own_deployment(device_wait_seconds=600), tmp_path).start_api()
    return deployment.start_worker(module="tests.gated_codec_worker", environment={"TEST_GATES": str(tmp_path)})


def given_back(deployment: Deployment, job_id: UUID) -> Callable[[], bool]:
    def is_given_back() -> bool:
        row = deployment.row(job_id)
        return (row.state, row.attempt) == (JobState.QUEUED, 0)

    return is_given_back


def test_what_waits_is_given_back_at_once_and_what_runs_may_finish(deployment: Deployment) -> None:
    with Gate(deployment) as gate:
        # Given a job whose model runs, and two that wait for the device
        running = deployment.submit(gate.request, SLOW_MODEL)
        wait_until_running(deployment, running)
        waiting = [deployment.submit(sleeping(0), SLOW_MODEL) for _ in range(2)]
        for job_id in waiting:
            wait_until_decoded(deployment, job_id)
        # When the worker is told to stop
        worker = deployment.processes.pop("worker")
        worker.terminate()
        # Then those are given back, with all their attempts, while the first one runs
        for job_id in waiting:
            wait_for(given_back(deployment, job_id), "it to be given back")
        assert state_of(deployment, running) == JobState.RUNNING
    assert worker.wait(LIMIT_SECONDS) == 0
    assert_done_once(deployment, [running])
    deployment.start_worker("other")
    assert_done_once(deployment, waiting)


def test_what_is_being_decoded_is_given_back_before_it_is_decoded(deployment: Deployment, tmp_path: Path) -> None:
    hold = tmp_path / "decode.hold"
    hold.touch()
    job_id = deployment.submit(sleeping(0), SLOW_MODEL)
    wait_for((tmp_path / "decode.reached").exists, "it to be decoded")
    worker = deployment.processes.pop("worker")
    worker.terminate()
    wait_for(given_back(deployment, job_id), "it to be given back")
    # Then another worker runs it, whatever becomes of the first
    deployment.start_worker("other")
    assert_done_once(deployment, [job_id])
    assert worker.poll() is None
    hold.unlink()
    assert worker.wait(LIMIT_SECONDS) == 0
    assert_done_once(deployment, [job_id])


def test_what_is_being_encoded_is_finished(deployment: Deployment, tmp_path: Path) -> None:
    hold = tmp_path / "encode.hold"
    hold.touch()
    job_id = deployment.submit(sleeping(0), SLOW_MODEL)
    wait_for((tmp_path / "encode.reached").exists, "it to be encoded")
    worker = deployment.processes.pop("worker")
    worker.terminate()
    wait_for(lambda: "Shutting down..." in deployment.log_of("worker").read_text(), "the worker to know")
    assert state_of(deployment, job_id) == JobState.RUNNING
    hold.unlink()
    assert worker.wait(LIMIT_SECONDS) == 0
    assert state_of(deployment, job_id) == JobState.SUCCEEDED
    assert_done_once(deployment, [job_id])
