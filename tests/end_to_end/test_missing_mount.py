"""A process whose volume is not mounted takes nothing, fails nothing and deletes nothing."""

from pathlib import Path

from services.core.jobs import JobState
from tests.conftest import MakeDeployment
from tests.deployment import http, request_body, wait_for

JOBS = "/api/v2/Model/Centered%20Orange%20Square/segmentation"


def test_a_worker_without_its_mount_takes_no_job(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    # Given jobs, and a worker at whose mount point nothing is mounted
    deployment = own_deployment().import_sample().start_api()
    jobs = [deployment.submit() for _ in range(3)]
    deployment.start_worker("lost", environment={"SEGINT_VOLUME_DIR": str(tmp_path)})
    wait_for(lambda: "cannot claim" in deployment.log_of("lost").read_text(), "it to look for work")
    # Then it says what is wrong, and the jobs wait for one that has the volume
    assert ".segint-volume is missing" in deployment.log_of("lost").read_text()
    assert {deployment.row(job_id).state for job_id in jobs} == {JobState.QUEUED}
    deployment.start_worker()
    for job_id in jobs:
        assert deployment.finished(job_id).percent == 100
        assert deployment.row(job_id).attempt == 1
    assert list(tmp_path.iterdir()) == []


def test_an_api_that_starts_without_its_mount_takes_nothing_and_loses_nothing(
    own_deployment: MakeDeployment, tmp_path: Path
) -> None:
    # Given a finished job
    deployment = own_deployment(orphan_seconds=2, upload_limit_seconds=1).import_sample().start_api().start_worker()
    job_id = deployment.submit()
    assert deployment.finished(job_id).percent == 100
    # When another API process starts where nothing is mounted
    deployment.start_api("lost", environment={"SEGINT_VOLUME_DIR": str(tmp_path)}, until_ready=False)
    wait_for(lambda: deployment.answers("lost"), "it to answer")
    lost = deployment.at("lost")
    # Then it is not ready, takes nothing, and asks for patience
    assert http.get(f"{lost.url}/readyz").status_code == 503
    assert lost.post(JOBS, request_body()).status_code == 503
    assert lost.get(f"{JOBS}/{job_id}/result").status_code == 503
    skipped = "janitor skipped a round"
    wait_for(lambda: deployment.log_of("lost").read_text().count(skipped) > 8, "its janitor to look for a while")
    # and the other one still has the result
    assert deployment.row(job_id).state == JobState.SUCCEEDED
    assert deployment.get(f"{JOBS}/{job_id}/result").status_code == 200
    assert list(tmp_path.iterdir()) == []


def test_a_volume_that_was_copied_without_its_empty_folders_gets_them_again(own_deployment: MakeDeployment) -> None:
    # Given a volume as some tools copy it: what is empty is left out
    deployment = own_deployment().import_sample()
    for name in ("segmentation", "results"):
        (deployment.volume_dir / name).rmdir()
    # When the services start on it
    deployment.start_api().start_worker()
    # Then they work
    assert deployment.finished(deployment.submit()).percent == 100
