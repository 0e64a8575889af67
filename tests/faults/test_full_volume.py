"""The volume has no room: uploads are refused, results wait, nothing half-written stays, and room heals all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.core.jobs import JobErrorCode, JobState
from services.core.wire.refusals import decode_refusal
from tests.deployment import PROTOBUF, http, request_body, wait_for
from tests.faults.breakable import BreakableDeployment
from tests.faults.conftest import MakeBreakable
from tests.faults.full_volume import filled, small_volume_dir
from tests.faults.verdicts import assert_done_once, files_of, logged
from tests.slow_model import SLOW_MODEL, Gate, sleeping, wait_until_running, with_slow_model

VOLUME_BYTES = 8 * 1024**2
UPLOAD = "/api/v2/Model/Centered%20Orange%20Square/segmentation"


@pytest.fixture(scope="module")
def volume_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with small_volume_dir(tmp_path_factory.mktemp("small"), VOLUME_BYTES) as folder:
        yield folder


@pytest.fixture(scope="module")
def site(
    volume_dir: Path, new_breakable: MakeBreakable, tmp_path_factory: pytest.TempPathFactory
) -> BreakableDeployment:
    deployment = new_breakable(
        volume_dir,
        lease_seconds=3,
        heartbeat_seconds=1,
        janitor_interval_seconds=0.5,
        attempt_limit=1,
        keep_inputs="never",
    )
    with_slow_model(deployment.import_sample(), tmp_path_factory.mktemp("slow"))
    return deployment.start_api().start_worker()


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_an_upload_without_room_is_507_and_leaves_nothing(site: BreakableDeployment, announced: bool) -> None:
    # Given a volume with room for the beginning of an upload
    body = request_body()
    with filled(site.volume_dir, leave_bytes=len(body) // 2):
        # When it is uploaded
        response = http.post(
            f"{site.url}{UPLOAD}",
            content=body if announced else iter([body[:1000], body[1000:]]),
            headers={"Content-Type": PROTOBUF, "Accept": PROTOBUF},
        )
        # Then it is refused in words, nothing of it is left, and the service lives
        assert response.status_code == 507
        assert "free space" in decode_refusal(response.content).details
        assert site.files("segmentation") == []
        assert http.get(f"{site.url}/healthz").status_code == 200
    # And with room again the next one passes
    job_id = site.submit(body)
    assert site.finished(job_id).percent == 100
    wait_for(lambda: site.files("segmentation") == [], "the input to be deleted")


def test_a_result_waits_for_room_and_costs_no_attempt(site: BreakableDeployment) -> None:
    with Gate(site) as gate:
        # Given a job that is at work when the volume fills up
        job_id = site.submit(gate.request, SLOW_MODEL)
        wait_until_running(site, job_id)
        with filled(site.volume_dir):
            # When its result finds no room for a while
            gate.open()
            wait_for(lambda: logged(site, "result not stored yet", job_id), "the result to find no room")
    # Then it is stored once there is some
    assert_done_once(site, [job_id])
    assert logged(site, "claimed", job_id) == 1


def test_a_result_that_never_finds_room_fails_its_job_in_words(site: BreakableDeployment) -> None:
    with Gate(site) as gate:
        job_id = site.submit(gate.request, SLOW_MODEL)
        wait_until_running(site, job_id)
        with filled(site.volume_dir):
            gate.open()
            progress = site.finished(job_id, SLOW_MODEL)
            row = site.row(job_id)
            assert (row.state, row.attempt) == (JobState.FAILED, 1)
            assert progress.error_code is JobErrorCode.INTERNAL
            assert "volume for payloads is full" in progress.error_text
            # Nothing of it is left, and with room again the next job passes
            wait_for(lambda: not files_of(site, job_id), "its files to be deleted")
    assert_done_once(site, [site.submit(sleeping(0), SLOW_MODEL)])
