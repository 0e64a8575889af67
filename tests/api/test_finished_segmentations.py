"""What clients are told of segmentations that failed, were cancelled, or expired."""

import uuid

import pytest
from sqlalchemy import update

from services.core.db.tables import SegmentationJobRow
from services.core.jobs import JobErrorCode, JobState
from services.core.wire.refusals import decode_refusal
from tests.conftest import MakeDeployment
from tests.deployment import Deployment

JOBS = "/api/v2/Model/Centered%20Orange%20Square/segmentation"


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment) -> Deployment:
    return new_deployment().import_sample().start_api()


def put_into(deployment: Deployment, state: JobState, **values: object) -> uuid.UUID:
    """A segmentation whose row says `state`."""
    job_id = deployment.submit()
    database = deployment.database()
    statement = update(SegmentationJobRow).where(SegmentationJobRow.id == job_id)
    database.run(lambda session: session.execute(statement.values(state=state.value, **values)))
    database.close()
    return job_id


def test_a_failed_segmentation_tells_why_and_has_no_result(deployment: Deployment) -> None:
    job_id = put_into(
        deployment,
        JobState.FAILED,
        error_text="The voxel data is not gzip.",
        error_code=JobErrorCode.DECOMPRESSION,
        progress_percent=10,
    )
    progress = deployment.progress(job_id)
    assert (progress.percent, progress.error_text) == (10, "The voxel data is not gzip.")
    assert progress.error_code is JobErrorCode.DECOMPRESSION
    response = deployment.get(f"{JOBS}/{job_id}/result")
    assert response.status_code == 400
    assert "not gzip" in decode_refusal(response.content).details


def test_a_cancelled_segmentation_says_so_and_has_no_result(deployment: Deployment) -> None:
    job_id = put_into(deployment, JobState.CANCELLED)
    progress = deployment.progress(job_id)
    assert progress.percent < 100
    assert "cancelled" in progress.error_text
    assert progress.error_code
    assert deployment.get(f"{JOBS}/{job_id}/result").status_code == 400


@pytest.mark.parametrize("suffix", ["", "/result"])
def test_an_expired_segmentation_is_400(deployment: Deployment, suffix: str) -> None:
    response = deployment.get(f"{JOBS}/{put_into(deployment, JobState.EXPIRED)}{suffix}")
    assert response.status_code == 400
    assert "has expired" in decode_refusal(response.content).details


def test_an_unfinished_segmentation_never_says_100(deployment: Deployment) -> None:
    job_id = put_into(deployment, JobState.RUNNING, progress_percent=100)
    assert deployment.progress(job_id).percent == 99


def test_feedback_about_an_expired_segmentation_is_kept(deployment: Deployment) -> None:
    put_into(deployment, JobState.EXPIRED)
    assert deployment.post("/api/v2/Feedback/segmentation").status_code == 200
