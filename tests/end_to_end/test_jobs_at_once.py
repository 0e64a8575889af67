"""One worker with several jobs in hand: who has the device, who comes next, and that nobody harms another."""

import time
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import redis
from sqlalchemy import update

from services.core.db.tables import SegmentationJobRow
from services.core.jobs import JobState
from services.core.queue import QUEUE_NAME
from services.core.wire.segmentations import decode_task
from services.worker.claiming import IDLE_PICK_UP_SECONDS
from services.worker.job_runner import BUSY_POLL_SECONDS
from tests.conftest import MakeDeployment
from tests.deployment import Deployment, wait_for
from tests.end_to_end.jobs_in_hand import cancel, state_of, wait_until_decoded
from tests.faults.processes import hosts_of
from tests.faults.verdicts import assert_done_once, logged
from tests.slow_model import SLOW_MODEL, Gate, sleeping, wait_until_running, with_slow_model

BURST = 12
JANITOR_INTERVAL_SECONDS = 0.5


@pytest.fixture(scope="module")
def site(new_deployment: MakeDeployment, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """One worker, which has the model of these tests loaded."""
    deployment = new_deployment(
        heartbeat_seconds=0.5, device_wait_seconds=600, janitor_interval_seconds=JANITOR_INTERVAL_SECONDS
    )
    with_slow_model(deployment, tmp_path_factory.mktemp("slow"))
    deployment.start_api().start_worker()
    assert_done_once(deployment, [deployment.submit(sleeping(0), SLOW_MODEL)])
    return deployment


def submit_batch(deployment: Deployment, request: bytes) -> UUID:
    response = deployment.post(f"/api/v2/Model/{SLOW_MODEL}/segmentation", request, SegInt_Priority="batch")
    return decode_task(response.content).segmentation_id


def doorbells(deployment: Deployment) -> int:
    with redis.Redis.from_url(deployment.settings.redis_url) as client:
        return int(client.llen(f"{deployment.settings.redis_namespace}:{QUEUE_NAME}"))


def test_the_next_job_is_decoded_while_one_has_the_device(site: Deployment) -> None:
    with Gate(site) as gate:
        # Given a job whose model runs
        first = site.submit(gate.request, SLOW_MODEL)
        wait_until_running(site, first)
        # (the janitor may have rung as well, between the worker's answering the doorbell and its claim)
        rung_twice = doorbells(site)
        # When another one comes, Then the same worker decodes it meanwhile
        second = site.submit(sleeping(0), SLOW_MODEL)
        wait_until_decoded(site, second)
        assert state_of(site, first) == JobState.RUNNING
        assert site.row(second).worker == site.row(first).worker
        # and its doorbell is not left over
        wait_for(lambda: doorbells(site) <= rung_twice, "the doorbell to be taken off")
    assert_done_once(site, [first, second])
    stage_seconds = site.row(second).stage_seconds
    assert stage_seconds["wait"] > 0
    # and it left an idle worker the time to take it
    assert stage_seconds["queued"] >= JANITOR_INTERVAL_SECONDS + IDLE_PICK_UP_SECONDS


def test_one_is_encoded_one_runs_and_one_is_decoded(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    deployment = with_slow_model(own_deployment(device_wait_seconds=600), tmp_path).start_api()
    deployment.start_worker(module="tests.gated_codec_worker", environment={"TEST_GATES": str(tmp_path)})
    hold = tmp_path / "encode.hold"
    hold.touch()
    with Gate(deployment) as gate:
        encoding = deployment.submit(sleeping(0), SLOW_MODEL)
        wait_for((tmp_path / "encode.reached").exists, "the first job to be encoded")
        running = deployment.submit(gate.request, SLOW_MODEL)
        wait_until_running(deployment, running)
        decoded = deployment.submit(sleeping(0), SLOW_MODEL)
        wait_until_decoded(deployment, decoded)
        jobs = [encoding, running, decoded]
        assert [state_of(deployment, job_id) for job_id in jobs] == [JobState.RUNNING] * 3
        # A fourth one waits in the queue, where any worker may take it
        fourth = deployment.submit(sleeping(0), SLOW_MODEL)
        hold.unlink()
        assert_done_once(deployment, [encoding])
        wait_until_decoded(deployment, fourth)
    assert_done_once(deployment, [*jobs, fourth])


def test_an_interactive_job_gets_the_device_before_a_batch_job_that_waits_longer(site: Deployment) -> None:
    with Gate(site) as last:
        with Gate(site) as gate:
            # Given a job whose model runs, and batch jobs of which one is decoded
            running = site.submit(gate.request, SLOW_MODEL)
            wait_until_running(site, running)
            batch = submit_batch(site, last.request)
            wait_until_decoded(site, batch)
            more = submit_batch(site, sleeping(0))
            # When an interactive one comes, Then it gets the last place, though the other batch job waits longer
            interactive = site.submit(sleeping(0), SLOW_MODEL)
            wait_until_decoded(site, interactive)
            assert state_of(site, more) == JobState.QUEUED
        # and the device before the batch job, which would keep it
        assert_done_once(site, [running, interactive])
        assert state_of(site, batch) == JobState.RUNNING
    assert_done_once(site, [batch, more])


def test_a_job_that_waits_for_the_device_is_cancelled_at_once_and_harms_nobody(site: Deployment) -> None:
    with Gate(site) as gate:
        running = site.submit(gate.request, SLOW_MODEL)
        wait_until_running(site, running)
        [host] = hosts_of(site)
        waiting = site.submit(sleeping(0), SLOW_MODEL)
        wait_until_decoded(site, waiting)
        # When the one that waits is cancelled
        cancel(site, waiting, SLOW_MODEL)
        # Then it ends while the other runs, whose host it must not touch
        wait_for(lambda: state_of(site, waiting) == JobState.CANCELLED, "the job to be cancelled")
        assert state_of(site, running) == JobState.RUNNING
    assert_done_once(site, [running])
    assert hosts_of(site) == [host]


def test_a_job_that_waits_and_loses_its_lease_harms_nobody(site: Deployment) -> None:
    with Gate(site) as gate:
        running = site.submit(gate.request, SLOW_MODEL)
        wait_until_running(site, running)
        [host] = hosts_of(site)
        lost = site.submit(sleeping(0), SLOW_MODEL)
        wait_until_decoded(site, lost)
        # When somebody else has the job's token
        database = site.database()
        taken = update(SegmentationJobRow).where(SegmentationJobRow.id == lost)
        database.run(lambda session: session.execute(taken.values(claim_token=uuid4())))
        # Then the worker drops the job while the other runs
        wait_for(lambda: logged(site, "fenced", lost) == 1, "it to be fenced")
        assert state_of(site, running) == JobState.RUNNING
        database.run(lambda session: session.execute(taken.values(state=JobState.QUEUED.value, claim_token=None)))
        database.close()
    assert_done_once(site, [running])
    assert hosts_of(site) == [host]
    assert_done_once(site, [lost], attempt=2)


def test_a_running_job_is_cancelled_and_the_one_that_waits_has_its_turn(site: Deployment) -> None:
    with Gate(site) as gate:
        running = site.submit(gate.request, SLOW_MODEL)
        wait_until_running(site, running)
        waiting = site.submit(sleeping(0), SLOW_MODEL)
        wait_until_decoded(site, waiting)
        cancel(site, running, SLOW_MODEL)
        # The gate is still closed
        wait_for(lambda: state_of(site, running) == JobState.CANCELLED, "the job to be cancelled")
        assert_done_once(site, [waiting])


def test_a_burst_is_done_by_one_worker_and_leaves_no_doorbell(site: Deployment) -> None:
    jobs = [site.submit(sleeping(0), SLOW_MODEL) for _ in range(BURST)]
    assert_done_once(site, jobs)
    wait_for(lambda: doorbells(site) == 0, "every doorbell to be fetched")


def test_two_idle_workers_share_two_jobs(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    # Given two idle workers that leave each other the time which a busy machine may need
    deployment = with_slow_model(own_deployment(lease_seconds=180), tmp_path).start_api()
    for name in ("first", "second"):
        deployment.start_worker(name, environment={"SEGINT_JANITOR_INTERVAL_SECONDS": "30"}, until_ready=True)
    with Gate(deployment) as gate:
        # When two jobs come at once
        jobs = [deployment.submit(gate.request, SLOW_MODEL) for _ in range(2)]
        # Then each runs one
        for job_id in jobs:
            wait_until_running(deployment, job_id)
        assert len({deployment.row(job_id).worker for job_id in jobs}) == 2
    assert_done_once(deployment, jobs)


def test_a_job_that_waits_for_long_is_given_back_for_a_worker_that_is_idle_by_now(
    own_deployment: MakeDeployment, tmp_path: Path
) -> None:
    deployment = with_slow_model(own_deployment(device_wait_seconds=1), tmp_path).start_api().start_worker()
    with Gate(deployment) as gate:
        # Given a job that waits behind a long one, because there was no other worker
        long = deployment.submit(gate.request, SLOW_MODEL)
        wait_until_running(deployment, long)
        waiting = deployment.submit(sleeping(0), SLOW_MODEL)
        # When its worker has given it back
        wait_for(lambda: logged(deployment, "released", waiting) == 1, "it to be given back")
        assert deployment.row(waiting).attempt == 0
        # Then another one that comes runs it, and no attempt is counted
        deployment.start_worker("second")
        assert_done_once(deployment, [waiting])
        assert state_of(deployment, long) == JobState.RUNNING
        assert logged(deployment, "claimed", waiting) == 2
    assert_done_once(deployment, [long])
    # And the first one goes on taking jobs
    deployment.stop("second")
    assert_done_once(deployment, [deployment.submit(sleeping(0), SLOW_MODEL)])


def test_the_next_job_is_decoded_when_a_long_run_should_be_nearly_done(
    own_deployment: MakeDeployment, tmp_path: Path
) -> None:
    # Given a worker whose model's last run was short, and a job of it that takes long
    deployment = with_slow_model(own_deployment(device_wait_seconds=1), tmp_path).start_api().start_worker()
    assert_done_once(deployment, [deployment.submit(sleeping(0), SLOW_MODEL)])
    with Gate(deployment) as gate:
        long = deployment.submit(gate.request, SLOW_MODEL)
        wait_until_running(deployment, long)
        # When another one waits behind it, Then it is taken again after it was given back: the long one should be done
        waiting = deployment.submit(sleeping(0), SLOW_MODEL)
        wait_for(lambda: logged(deployment, "released", waiting) == 2, "it to be given back again")
        # And that was the last time: the worker has seen that it was wrong
        deployment.start_worker("second")
        assert_done_once(deployment, [waiting])
        assert logged(deployment, "claimed", waiting) == 3
        assert state_of(deployment, long) == JobState.RUNNING
    assert_done_once(deployment, [long])


def test_a_job_that_has_lost_an_attempt_is_run_alone(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    deployment = with_slow_model(own_deployment(device_wait_seconds=600), tmp_path).start_api()
    with Gate(deployment) as gate:
        # Given a job that has lost an attempt, and runs
        tried = deployment.submit(gate.request, SLOW_MODEL)
        database = deployment.database()
        row = update(SegmentationJobRow).where(SegmentationJobRow.id == tried).values(attempt=1)
        database.run(lambda session: session.execute(row))
        database.close()
        deployment.start_worker()
        wait_until_running(deployment, tried)
        # When another one has waited for longer than it takes to be claimed beside
        other = deployment.submit(sleeping(0), SLOW_MODEL)
        submitted_at = time.monotonic()
        wait_for(lambda: time.monotonic() - submitted_at > 3 * (IDLE_PICK_UP_SECONDS + BUSY_POLL_SECONDS), "the worker")
        # Then it still waits for any worker
        assert state_of(deployment, other) == JobState.QUEUED
        deployment.start_worker("second")
        assert_done_once(deployment, [other])
    assert_done_once(deployment, [tried], attempt=2)
