"""What must hold of a job, whatever has died meanwhile."""

from collections.abc import Iterable
from functools import partial
from uuid import UUID

from services.core.jobs import JobState
from tests.deployment import Deployment, wait_for
from tests.log_lines import logged_records
from tests.slow_model import SLOW_MODEL
from tests.worker.models import SHAPE


def assert_done_once(deployment: Deployment, job_ids: Iterable[UUID], *, attempt: int = 1) -> None:
    """Each job of the slow model succeeds at that attempt, with the right result, and leaves that one file."""
    for job_id in job_ids:
        progress = deployment.finished(job_id, SLOW_MODEL)
        assert (progress.percent, progress.error_text) == (100, "")
        row = deployment.row(job_id)
        assert (row.state, row.attempt) == (JobState.SUCCEEDED, attempt)
        [channel] = deployment.result(job_id, SLOW_MODEL).channels
        assert channel.mask.shape == SHAPE
        wait_for(partial(_has_only, deployment, job_id, row.result_file), "its input and every other file to be gone")


def _has_only(deployment: Deployment, job_id: UUID, name: str | None) -> bool:
    return files_of(deployment, job_id) == [name]


def files_of(deployment: Deployment, job_id: UUID) -> list[str]:
    """Names of what is on the volume for a job, inputs that its end has not deleted yet included."""
    return [name for name in deployment.files() if name.startswith(str(job_id))]


def logged(deployment: Deployment, message: str, job_id: UUID) -> int:
    """How often any process has logged that of a job."""
    logs = deployment.log_dir.glob("*.log")
    return sum(record["message"] == message for log in logs for record in logged_records(log, str(job_id)))
