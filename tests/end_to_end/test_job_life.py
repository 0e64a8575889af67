"""A job through the whole deployment: warm models, cancelling, expiry, odd volumes, and what a host may see."""

from pathlib import Path

import numpy as np
import psutil
import redis
from sqlalchemy import update

from services.core.db.tables import SegmentationJobRow
from services.core.jobs import JobState
from services.core.volumes import Volume
from tests.conftest import MakeDeployment
from tests.deployment import request_body, wait_for
from tests.faults.processes import hosts_of
from tests.slow_model import sleeping, wait_until_running, with_slow_model


def test_worker_and_hosts_yield_to_the_api(own_deployment: MakeDeployment) -> None:
    deployment = own_deployment().import_sample().start_api().start_worker()
    assert deployment.finished(deployment.submit()).percent == 100
    api, worker = (psutil.Process(deployment.processes[name].pid) for name in ("api", "worker"))
    [host] = hosts_of(deployment)
    assert host.nice() == worker.nice() > api.nice()


def test_a_model_stays_warm_between_jobs(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    deployment = with_slow_model(own_deployment(), tmp_path).start_api().start_worker()
    pids = set()
    for _ in range(3):
        assert deployment.finished(deployment.submit(sleeping(0), "slow"), "slow").percent == 100
        pids |= {host.pid for host in hosts_of(deployment)}
    assert len(pids) == 1


def test_a_cancel_flag_kills_the_run(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    deployment = with_slow_model(own_deployment(heartbeat_seconds=0.5), tmp_path).start_api().start_worker()
    job_id = deployment.submit(sleeping(2000), "slow")
    wait_until_running(deployment, job_id)
    database = deployment.database()
    flag = update(SegmentationJobRow).where(SegmentationJobRow.id == job_id).values(cancel_requested=True)
    database.run(lambda session: session.execute(flag))
    database.close()
    assert "cancelled" in deployment.finished(job_id, "slow", limit_seconds=10).error_text
    assert deployment.row(job_id).state == JobState.CANCELLED
    assert deployment.finished(deployment.submit(sleeping(0), "slow"), "slow").percent == 100


def test_a_file_that_cannot_be_deleted_holds_up_nothing(own_deployment: MakeDeployment) -> None:
    # Given a finished job whose input cannot be deleted
    deployment = own_deployment(keep_inputs="never").import_sample().start_api()
    stuck = deployment.submit()
    file = deployment.volume_dir / "segmentation" / f"{stuck}.pb"
    body = file.read_bytes()
    file.unlink()
    (file / "not empty").mkdir(parents=True)
    database = deployment.database()
    failed = update(SegmentationJobRow).where(SegmentationJobRow.id == stuck).values(state="failed")
    database.run(lambda session: session.execute(failed))
    database.close()
    # When Redis forgets every doorbell
    job_id = deployment.submit(body)
    redis.Redis.from_url(deployment.settings.redis_url).flushall()
    deployment.start_worker()
    # Then the janitor rings all the same, and deletes what it can
    assert deployment.finished(job_id).percent == 100
    wait_for(lambda: deployment.files("segmentation") == [file.name], "the other input to be deleted")


def test_results_expire_with_their_files(own_deployment: MakeDeployment) -> None:
    deployment = own_deployment(result_retention_hours=0.0003).import_sample().start_api().start_worker()
    job_id = deployment.submit()
    wait_for(lambda: deployment.row(job_id).state == JobState.EXPIRED, "the segmentation to expire")
    wait_for(lambda: not deployment.files(), "its files to be deleted")
    response = deployment.get(f"/api/v2/Model/Centered%20Orange%20Square/segmentation/{job_id}")
    assert response.status_code == 400


def test_model_hosts_do_not_see_the_worker_s_environment(own_deployment: MakeDeployment) -> None:
    """/proc/PID/environ of the worker belongs to root even when the worker does not."""
    deployment = own_deployment().import_sample().start_api().start_worker()
    deployment.finished(deployment.submit())
    worker = psutil.Process(deployment.processes["worker"].pid)
    for process in [worker, *worker.children()]:
        assert Path(f"/proc/{process.pid}/environ").stat().st_uid == 0
    [host] = hosts_of(deployment)
    assert not [name for name in host.environ() if name.startswith("SEGINT_")]


def test_small_and_odd_volumes(own_deployment: MakeDeployment) -> None:
    deployment = own_deployment().import_sample().start_api().start_worker()
    for shape in [(1, 1, 1), (1, 512, 512), (3, 59, 61), (300, 4, 4)]:
        job_id = deployment.submit(request_body(Volume(np.zeros(shape, np.int16))))
        assert deployment.finished(job_id).percent == 100
        [channel] = deployment.result(job_id).channels
        assert channel.mask.shape == shape
        assert channel.mask.voxels.any()
