"""Results are whole or not served; their digest is their ETag; a download that broke off goes on where it ended."""

import hashlib
from uuid import UUID

import httpx
import pytest

from services.core.jobs import JobErrorCode, JobState
from services.core.wire.refusals import decode_refusal
from tests.conftest import MakeDeployment
from tests.deployment import PROTOBUF, Deployment, http, request_body, small_volume, wait_for

JOBS = "/api/v2/Model/Centered%20Orange%20Square/segmentation"


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment) -> Deployment:
    return new_deployment().import_sample().start_api().start_worker()


def finished_job(deployment: Deployment) -> UUID:
    job_id = deployment.submit()
    assert deployment.finished(job_id).percent == 100
    return job_id


def fetch(deployment: Deployment, job_id: UUID, accept: str = PROTOBUF, **headers: str) -> httpx.Response:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return http.get(f"{deployment.url}{JOBS}/{job_id}/result", headers={"Accept": accept, **headers}, timeout=30)


def test_the_digests_of_what_came_in_and_went_out_are_kept(deployment: Deployment) -> None:
    job_id = finished_job(deployment)
    response = fetch(deployment, job_id)
    row = deployment.row(job_id)
    assert row.input_sha256 == hashlib.sha256(request_body()).hexdigest()
    assert row.result_sha256 == hashlib.sha256(response.content).hexdigest()
    assert response.headers["etag"] == f'"{row.result_sha256}"'
    assert response.headers["cache-control"].startswith("private")


def test_json_has_a_tag_of_its_own(deployment: Deployment) -> None:
    job_id = finished_job(deployment)
    assert fetch(deployment, job_id, "application/json").headers["etag"] != fetch(deployment, job_id).headers["etag"]


def test_a_result_that_is_there_already_is_not_sent_again(deployment: Deployment) -> None:
    job_id = finished_job(deployment)
    tag = fetch(deployment, job_id).headers["etag"]
    for value in (tag, f'"other", W/{tag}'):
        response = fetch(deployment, job_id, If_None_Match=value)
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == tag
    assert fetch(deployment, job_id, If_None_Match='"other"').status_code == 200


def test_a_download_goes_on_where_it_broke_off(deployment: Deployment) -> None:
    job_id = finished_job(deployment)
    whole = fetch(deployment, job_id)
    assert whole.headers["accept-ranges"] == "bytes"
    tag, half = whole.headers["etag"], len(whole.content) // 2
    rest = fetch(deployment, job_id, Range=f"bytes={half}-", If_Range=tag)
    assert rest.status_code == 206
    assert rest.headers["content-range"] == f"bytes {half}-{len(whole.content) - 1}/{len(whole.content)}"
    assert whole.content[:half] + rest.content == whole.content
    assert rest.headers["etag"] == tag
    # What has another tag is sent whole, and what is past the end is refused.
    assert fetch(deployment, job_id, Range=f"bytes={half}-", If_Range='"other"').status_code == 200
    assert fetch(deployment, job_id, Range=f"bytes={len(whole.content)}-").status_code == 416


@pytest.mark.parametrize("value", ["items=0-1", "bytes=5-3", "bytes=", "bytes=x-", "bytes=1-2,5-3", "0-4"])
def test_a_range_that_makes_no_sense_is_ignored(deployment: Deployment, value: str) -> None:
    job_id = finished_job(deployment)
    assert fetch(deployment, job_id, Range=value).status_code == 200


def test_a_head_has_no_ranges(deployment: Deployment) -> None:
    job_id = finished_job(deployment)
    headers = {"Accept": PROTOBUF, "Range": "bytes=0-3"}
    response = http.head(f"{deployment.url}{JOBS}/{job_id}/result", headers=headers)
    assert response.status_code == 200
    assert int(response.headers["content-length"]) == deployment.row(job_id).result_bytes


@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "longer", "gone"])
@pytest.mark.parametrize("accept", [PROTOBUF, "application/json"])
def test_a_damaged_result_is_never_served(deployment: Deployment, damage: str, accept: str) -> None:
    # Given a finished job whose result is damaged on the volume
    job_id = finished_job(deployment)
    path = deployment.volume_dir / "results" / str(deployment.row(job_id).result_file)
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        path.write_bytes(
            {
                "a flipped bit": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
                "cut short": content[:-1],
                "longer": content + b"\0",
            }[damage]
        )
    # When it is fetched, Then the answer is a refusal in words
    response = fetch(deployment, job_id, accept)
    assert response.status_code == 400
    if accept == PROTOBUF:
        assert "submit the volume again" in decode_refusal(response.content).details
    # and the job has failed from now on, for pollers too
    row = deployment.row(job_id)
    assert (row.state, row.error_code) == (JobState.FAILED, JobErrorCode.INTERNAL)
    progress = deployment.progress(job_id)
    assert progress.percent < 100
    assert ("any more" if damage == "gone" else "damaged") in progress.error_text
    assert fetch(deployment, job_id, Range="bytes=0-3").status_code == 400


def test_a_volume_that_is_not_mounted_fails_no_job(own_deployment: MakeDeployment) -> None:
    # Given finished jobs, and a volume that went away
    deployment = own_deployment(orphan_seconds=2, upload_limit_seconds=1).import_sample().start_api().start_worker()
    job_id = finished_job(deployment)
    volume, away = deployment.volume_dir, deployment.volume_dir.with_name("away")
    volume.rename(away)
    volume.mkdir()  # an empty mount point
    try:
        # When the result is fetched, Then it is «later», for as long as it takes
        response = fetch(deployment, job_id)
        assert response.status_code == 503
        assert response.headers["retry-after"]
        assert deployment.post(JOBS, request_body()).status_code == 503
        ready = http.get(f"{deployment.url}/readyz")
        assert ready.status_code == 503
        assert ".segint-volume" in ready.json()["checks"]["volume"]
        # and neither does the janitor miss anything, nor does a worker take jobs
        before = deployment.log_of("api").read_text().count("janitor skipped a round")
        wait_for(
            lambda: deployment.log_of("api").read_text().count("janitor skipped a round") > before + 20,
            "the janitor to look",
        )
        assert deployment.row(job_id).state == JobState.SUCCEEDED
    finally:
        volume.rmdir()
        away.rename(volume)
    assert fetch(deployment, job_id).status_code == 200


def test_a_damaged_input_is_the_servers_fault_not_the_clients(own_deployment: MakeDeployment) -> None:
    # Given uploads that are damaged on the volume before a worker comes: in the voxels, in the message, at its end
    deployment = own_deployment().import_sample().start_api()
    jobs = [deployment.submit(request_body(small_volume((8, 80, 100)))) for _ in range(3)]
    for job_id, position in zip(jobs, (-200, 0, None), strict=True):
        path = deployment.volume_dir / "segmentation" / f"{job_id}.pb"
        content = bytearray(path.read_bytes())
        if position is None:
            del content[len(content) // 2 :]
        else:
            content[position] ^= 0x55
        path.write_bytes(content)
    deployment.start_worker()
    for job_id in jobs:
        progress = deployment.finished(job_id)
        assert progress.error_code is JobErrorCode.INTERNAL
        assert "damaged on the server's volume; submit it again" in progress.error_text
