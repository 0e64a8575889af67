"""What one can see of the jobs that a worker has in hand."""

from uuid import UUID

from services.core.jobs import JobState
from services.worker.pipeline import DECODED_PERCENT, LOADED_PERCENT
from tests.deployment import Deployment, http, wait_for


def wait_until_decoded(deployment: Deployment, job_id: UUID) -> None:
    """Until the job is in a worker's hands with its volume inflated, and its model not begun."""
    wait_for(lambda: progress_of(deployment, job_id) >= DECODED_PERCENT, "the volume to be decoded")
    assert DECODED_PERCENT <= progress_of(deployment, job_id) < LOADED_PERCENT


def progress_of(deployment: Deployment, job_id: UUID) -> int:
    row = deployment.row(job_id)
    return row.progress_percent if row.state == JobState.RUNNING else 0


def state_of(deployment: Deployment, job_id: UUID) -> JobState:
    return JobState(deployment.row(job_id).state)


def cancel(deployment: Deployment, job_id: UUID, model: str) -> None:
    """Ask for it as a client does."""
    response = http.delete(f"{deployment.url}/api/v2/Model/{model}/segmentation/{job_id}", timeout=30)
    assert response.is_success, response.content
