"""The queue's promises, with real kills: accepted is never lost, and nothing is shown twice."""

import signal
from pathlib import Path

import numpy as np
import psutil
import redis
from sqlalchemy import update

from services.core.db import claims
from services.core.db.tables import SegmentationJobRow
from services.core.jobs import JobState
from services.core.queue import Doorbell
from services.core.volumes import Volume
from services.core.wire.segmentations import decode_task
from tests.conftest import MakeDeployment
from tests.deployment import SAMPLE_MODEL, request_body, wait_for
from tests.faults.processes import hosts_of
from tests.slow_model import sleeping, wait_until_running, with_slow_model


def test_a_job_survives_the_kill_of_its_worker(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    # Given a job that runs in a worker
    deployment = with_slow_model(own_deployment(lease_seconds=3, heartbeat_seconds=0.5), tmp_path)
    deployment.start_api().start_worker()
    job_id = deployment.submit(sleeping(60), "slow")
    wait_until_running(deployment, job_id)
    [host] = hosts_of(deployment)
    worker = psutil.Process(deployment.processes["worker"].pid)
    # When every process of the worker is killed at once
    for process in [*worker.children(), worker]:
        if process.pid != host.pid:
            process.kill()
    # Then its host dies with it, and another worker completes the job
    wait_for(lambda: not host.is_running() or host.status() == psutil.STATUS_ZOMBIE, "the host to die")
    deployment.stop("worker", stop_signal=signal.SIGKILL)
    deployment.start_worker()
    assert deployment.finished(job_id, "slow").percent == 100
    assert deployment.row(job_id).attempt == 2
    wait_for(lambda: len(deployment.files()) == 1, "only the result to be left")


def test_worker_and_hosts_yield_to_the_api(own_deployment: MakeDeployment) -> None:
    deployment = own_deployment().import_sample().start_api().start_worker()
    assert deployment.finished(deployment.submit()).percent == 100
    api, worker = (psutil.Process(deployment.processes[name].pid) for name in ("api", "worker"))
    [host] = hosts_of(deployment)
    assert host.nice() == worker.nice() > api.nice()


def test_queued_jobs_survive_a_flush_of_redis(own_deployment: MakeDeployment) -> None:
    deployment = own_deployment().import_sample().start_api()
    jobs = [deployment.submit() for _ in range(5)]
    redis.Redis.from_url(deployment.settings.redis_url).flushall()
    deployment.start_worker()
    assert [deployment.finished(job_id).percent for job_id in jobs] == [100] * 5


def test_a_second_delivery_of_a_doorbell_runs_nothing_twice(own_deployment: MakeDeployment) -> None:
    deployment = own_deployment().import_sample().start_api().start_worker()
    doorbell = Doorbell(deployment.settings.redis_url, deployment.settings.redis_namespace)
    doorbell.ring(20)
    job_id = deployment.submit()
    assert deployment.finished(job_id).percent == 100
    wait_for(lambda: doorbell.waiting() == 0, "every doorbell to be answered")
    assert deployment.row(job_id).attempt == 1


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


def test_a_short_job_may_finish_while_its_worker_stops(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    deployment = with_slow_model(own_deployment(drain_seconds=20), tmp_path).start_api().start_worker()
    job_id = deployment.submit(sleeping(40), "slow")
    wait_until_running(deployment, job_id)
    deployment.stop("worker")
    assert deployment.row(job_id).state == JobState.SUCCEEDED


def test_a_long_job_is_given_back_uncounted(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    deployment = with_slow_model(own_deployment(drain_seconds=1), tmp_path).start_api().start_worker()
    job_id = deployment.submit(sleeping(100), "slow")
    wait_until_running(deployment, job_id)
    deployment.stop("worker")
    given_back = deployment.row(job_id)
    assert (given_back.state, given_back.attempt) == (JobState.QUEUED, 0)
    deployment.start_worker()
    assert deployment.finished(job_id, "slow").percent == 100
    assert deployment.row(job_id).attempt == 1


def test_a_poisonous_job_fails_at_the_attempt_limit(own_deployment: MakeDeployment) -> None:
    """A worker that dies with every claim: attempts are counted by the claim, not by the worker."""
    deployment = own_deployment(attempt_limit=2, retry_delay_seconds=0).import_sample().start_api()
    job_id = deployment.submit()
    database = deployment.database()
    for _ in range(2):
        wait_for(
            lambda: database.run(claims.claim, worker="dies at once", lease_seconds=0.5), "the job to be claimable"
        )
    progress = deployment.finished(job_id)
    database.close()
    assert f"«{SAMPLE_MODEL}» did not finish in 2 attempts" in progress.error_text
    assert deployment.row(job_id).attempt == 2


def test_batch_waits_for_interactive(own_deployment: MakeDeployment) -> None:
    deployment = own_deployment().import_sample().start_api()
    path = "/api/v2/Model/Centered%20Orange%20Square/segmentation"
    batch = [
        decode_task(deployment.post(path, request_body(), SegInt_Priority="batch").content).segmentation_id
        for _ in range(2)
    ]
    interactive = deployment.submit()
    deployment.start_worker()
    for job_id in [*batch, interactive]:
        deployment.finished(job_id)
    finished = {job_id: deployment.row(job_id).finished_at for job_id in [*batch, interactive]}
    assert sorted(finished, key=lambda job_id: str(finished[job_id])) == [interactive, *batch]


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
