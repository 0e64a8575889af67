"""DELETE of a segmentation: waiting, running, finished, unknown; and against a finish at the same moment."""

import json
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from services.core.jobs import JobState
from services.core.wire.refusals import decode_refusal
from services.core.wire.segmentations import decode_progress
from tests.api.test_finished_segmentations import put_into
from tests.conftest import MakeDeployment
from tests.deployment import PROTOBUF, SAMPLE_MODEL, Deployment, http, wait_for
from tests.slow_model import SLOW_MODEL, sleeping, wait_until_running, with_slow_model


@pytest.fixture(scope="module")
def waiting(new_deployment: MakeDeployment) -> Deployment:
    """Nobody works here, so every job waits."""
    return new_deployment().import_sample().start_api()


def cancel(deployment: Deployment, job_id: object, model: str = SAMPLE_MODEL, accept: str = PROTOBUF) -> httpx.Response:
    path = f"/api/v2/Model/{model.replace(' ', '%20')}/segmentation/{job_id}"
    return http.delete(deployment.url + path, headers={"Accept": accept}, timeout=30)


def test_a_waiting_segmentation_is_cancelled_at_once(waiting: Deployment) -> None:
    job_id = waiting.submit()
    response = cancel(waiting, job_id)
    assert response.status_code == 200
    assert "cancelled" in decode_progress(response.content).error_text
    assert waiting.row(job_id).state == JobState.CANCELLED
    # Asking again changes nothing, and the scan goes.
    assert cancel(waiting, job_id).status_code == 200
    wait_for(lambda: f"{job_id}.pb" not in waiting.files("segmentation"), "the input to be deleted")


def test_the_answer_is_json_for_who_wants_it(waiting: Deployment) -> None:
    response = cancel(waiting, waiting.submit(), accept="*/*")
    assert response.headers["content-type"] == "application/json"
    assert json.loads(response.content)["Errors"] == "The segmentation was cancelled."


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED])
def test_a_finished_segmentation_cannot_be_cancelled(waiting: Deployment, state: JobState) -> None:
    job_id = put_into(waiting, state)
    response = cancel(waiting, job_id)
    assert response.status_code == 400
    refusal = decode_refusal(response.content)
    assert refusal.summary == "Segmentation already finished"
    assert state.value in refusal.details
    assert waiting.row(job_id).state == state


@pytest.mark.parametrize("job_id", [uuid4(), "nonsense"])
def test_what_is_not_there_cannot_be_cancelled(waiting: Deployment, job_id: object) -> None:
    assert cancel(waiting, job_id).status_code == 400


def test_a_segmentation_of_another_model_is_not_cancelled(waiting: Deployment) -> None:
    job_id = waiting.submit()
    assert cancel(waiting, job_id, model="another").status_code == 400
    assert waiting.row(job_id).state == JobState.QUEUED


def test_without_a_token_nothing_is_cancelled(own_deployment: MakeDeployment) -> None:
    guarded = own_deployment(trusted_networks="").import_sample().start_api()
    assert cancel(guarded, uuid4()).status_code == 401


def test_a_running_segmentation_stops_within_a_heartbeat(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    # Given a job that would run for minutes
    deployment = with_slow_model(own_deployment(heartbeat_seconds=0.5), tmp_path).start_api().start_worker()
    job_id = deployment.submit(sleeping(4000), SLOW_MODEL)
    wait_until_running(deployment, job_id)
    # When it is cancelled
    response = cancel(deployment, job_id, SLOW_MODEL)
    assert response.status_code == 202
    # Then it ends as cancelled, and the worker takes the next one
    assert "cancelled" in deployment.finished(job_id, SLOW_MODEL).error_text
    assert deployment.finished(deployment.submit(sleeping(0), SLOW_MODEL), SLOW_MODEL).percent == 100
    wait_for(lambda: f"{job_id}.pb" not in deployment.files("segmentation"), "the input to be deleted")
    assert not [name for name in deployment.files("results") if name.startswith(str(job_id))]


def test_cancels_that_race_with_finishing_leave_one_verdict_each(
    own_deployment: MakeDeployment, tmp_path: Path
) -> None:
    """Cancelled at every moment between acceptance and a while after the end."""
    deployment = with_slow_model(own_deployment(heartbeat_seconds=0.5), tmp_path).start_api().start_worker()
    deployment.finished(deployment.submit(sleeping(0), SLOW_MODEL), SLOW_MODEL)
    verdicts = set()
    for percent in (0, 10, 15, 50, 90, 95, 100) * 3:
        # Given a short job that has come this far
        job_id = deployment.submit(sleeping(2), SLOW_MODEL)
        wait_for(lambda: reached(deployment, job_id, percent), f"{percent} %")  # noqa: B023 # called at once
        # When it is cancelled, Then client, row and volume tell the same story
        status = cancel(deployment, job_id, SLOW_MODEL).status_code
        progress = deployment.finished(job_id, SLOW_MODEL)
        state = deployment.row(job_id).state
        verdicts.add(state)
        path = f"/api/v2/Model/{SLOW_MODEL}/segmentation/{job_id}/result"
        if state == JobState.SUCCEEDED:
            assert status == 400
            assert progress.percent == 100
            assert deployment.get(path).status_code == 200
        else:
            assert state == JobState.CANCELLED
            assert status in (200, 202)
            assert deployment.get(path).status_code == 400
    assert verdicts == {JobState.SUCCEEDED, JobState.CANCELLED}


def reached(deployment: Deployment, job_id: UUID, percent: int) -> bool:
    row = deployment.row(job_id)
    return row.progress_percent >= percent or row.finished_at is not None
