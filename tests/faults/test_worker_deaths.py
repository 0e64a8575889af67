"""A worker is killed, frozen or told to stop: its job runs again or is given back, and only one result counts."""

import time
from uuid import UUID

import pytest

from services.client.local import children
from services.core.db import claims
from services.core.jobs import JobState
from services.core.wire.segmentations import decode_task
from tests.deployment import LIMIT_SECONDS, SAMPLE_MODEL, request_body, wait_for
from tests.faults.breakable import BreakableDeployment
from tests.faults.conftest import MakeBreakable
from tests.faults.processes import (
    freeze,
    frozen,
    gone,
    hosts_of,
    kill,
    kill_at_once,
    kill_worker,
    thaw,
    tree_of,
    worker_processes,
)
from tests.faults.verdicts import assert_done_once, logged
from tests.slow_model import SLOW_MODEL, Gate, sleeping, wait_until_running, with_slow_model

LEASE_SECONDS = 8
TAKEN_OVER_SECONDS = 3 * LEASE_SECONDS
"""A janitor that was held up for a third of a lease takes it for an outage, and waits for another lease. A lease by
default settings would be longer, as would the wait of a message broker for an acknowledgement."""
WORKERS = ("one", "two")


@pytest.fixture(scope="module")
def lasting(new_breakable: MakeBreakable, tmp_path_factory: pytest.TempPathFactory) -> BreakableDeployment:
    """An API, and the back-off between attempts that there is by default."""
    deployment = new_breakable(lease_seconds=LEASE_SECONDS, heartbeat_seconds=1)
    with_slow_model(deployment.import_sample(), tmp_path_factory.mktemp("slow"))
    return deployment.start_api()


@pytest.fixture
def site(lasting: BreakableDeployment) -> BreakableDeployment:
    """With two workers, whatever an earlier test has done to them."""
    for name in WORKERS:
        if name not in lasting.processes:
            lasting.start_worker(name, until_ready=True)
    return lasting


def owner_of(deployment: BreakableDeployment, job_id: UUID) -> str:
    """The name of the worker that has claimed a job."""
    worker = deployment.row(job_id).worker
    assert worker is not None
    pid = int(worker.rpartition(":")[2])
    [name] = [name for name in WORKERS if pid in [process.pid for process in worker_processes(deployment, name)]]
    return name


def other_than(name: str) -> str:
    [other] = set(WORKERS) - {name}
    return other


# --- Killed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["all at once", "the one that runs jobs"])
def test_the_job_of_a_killed_worker_runs_again_within_its_lease(site: BreakableDeployment, which: str) -> None:
    # Given a job that runs in one of two workers
    with Gate(site) as gate:
        job_id = site.submit(gate.request, SLOW_MODEL)
        wait_until_running(site, job_id)
        victim = owner_of(site, job_id)
        [host] = hosts_of(site, victim)
        # When that worker is killed
        killed_at = time.monotonic()
        if which == "all at once":
            kill_worker(site, victim)
        else:
            _, runner = worker_processes(site, victim)[:2]
            kill_at_once([runner])
            # Then its first process ends too, so that whoever watches it starts it again
            assert site.processes.pop(victim).wait(LIMIT_SECONDS) != 0
        # Then its model host is gone with it
        wait_for(lambda: gone(host), "the host to die")
        # And the other worker takes the job over once the lease has run out
        wait_for(lambda: site.row(job_id).attempt == 2, "the second attempt")
        assert time.monotonic() - killed_at < TAKEN_OVER_SECONDS
    assert_done_once(site, [job_id], attempt=2)


def test_a_job_outlives_the_first_process_of_its_worker(site: BreakableDeployment) -> None:
    """That one only watches; what it watched goes on, or is taken over."""
    with Gate(site) as gate:
        job_id = site.submit(gate.request, SLOW_MODEL)
        wait_until_running(site, job_id)
        victim = owner_of(site, job_id)
        group = site.processes[victim].pid
        kill(site, victim)
    try:
        assert site.finished(job_id, SLOW_MODEL).percent == 100
        assert_done_once(site, [job_id], attempt=site.row(job_id).attempt)
    finally:
        children.kill_group(group)  # as whoever supervises it does


def test_a_poisonous_job_fails_at_the_attempt_limit(site: BreakableDeployment) -> None:
    """A worker that dies with every claim: attempts are counted by the claim, not by the worker."""
    database = site.database()
    with frozen([process for name in WORKERS for process in worker_processes(site, name)]):
        job_id = site.submit()
        for _ in range(site.settings.attempt_limit):
            wait_for(
                lambda: database.run(claims.claim, worker="dies at once", lease_seconds=0.5), "the job to be claimable"
            )
        progress = site.finished(job_id)
    database.close()
    assert f"«{SAMPLE_MODEL}» did not finish in 3 attempts" in progress.error_text
    assert site.row(job_id).attempt == 3


# --- Frozen --------------------------------------------------------------------------------------------------


def test_a_worker_that_froze_is_fenced_while_another_runs_its_job(site: BreakableDeployment) -> None:
    # Given a job whose worker freezes with its host, so that the other worker takes it over
    with Gate(site) as gate:
        job_id = site.submit(gate.request, SLOW_MODEL)
        wait_until_running(site, job_id)
        late = owner_of(site, job_id)
        [host] = hosts_of(site, late)
        with frozen(tree_of(site, late)):
            wait_for(lambda: site.row(job_id).attempt == 2, "the second attempt")
        # When it goes on, Then its heartbeat tells it that it is too late, and it ends the run
        wait_for(lambda: logged(site, "fenced", job_id) == 1, "it to be fenced")
        wait_for(lambda: gone(host), "the run to end")
        assert site.row(job_id).state == JobState.RUNNING
        assert owner_of(site, job_id) == other_than(late)
    assert_done_once(site, [job_id], attempt=2)


def test_a_worker_that_froze_is_fenced_after_another_has_done_its_job(site: BreakableDeployment) -> None:
    # Given a job whose worker freezes without its host, which goes on and finishes, as the other worker does
    with Gate(site) as gate:
        job_id = site.submit(gate.request, SLOW_MODEL)
        wait_until_running(site, job_id)
        late = owner_of(site, job_id)
        with frozen(worker_processes(site, late)):
            wait_for(lambda: site.row(job_id).attempt == 2, "the second attempt")
            gate.open()
            assert_done_once(site, [job_id], attempt=2)
    # When it goes on, Then what its host has made counts for nothing
    wait_for(lambda: logged(site, "fenced", job_id) == 1, "it to be fenced")
    assert_done_once(site, [job_id], attempt=2)
    assert logged(site, "succeeded", job_id) == 1
    # And it runs jobs again
    with frozen(worker_processes(site, other_than(late))):
        assert_done_once(site, [site.submit(sleeping(0), SLOW_MODEL)])


def test_of_two_results_the_one_whose_token_holds_counts(site: BreakableDeployment) -> None:
    finish = ("UPDATE segmentation_job", "stage_seconds=")
    # Given a worker that has written its result, and freezes with the statement that makes it visible under way
    with Gate(site) as gate:
        job_id = site.submit(gate.request, SLOW_MODEL)
        wait_until_running(site, job_id)
        late = owner_of(site, job_id)
        late_statement = site.postgres_proxy.hold(*finish)
        gate.open()
    late_statement.wait()
    [late_result] = results_of(site, job_id)
    processes = worker_processes(site, late)
    freeze(processes)
    try:
        # And another attempt, made meanwhile, that has come as far
        statement = site.postgres_proxy.hold(*finish)
        statement.wait()
        [result] = results_of(site, job_id) - {late_result}
        # When the late statement arrives first
        site.postgres_proxy.release(late_statement)
    finally:
        thaw(processes)
    # Then it changes nothing, and the late result is deleted
    wait_for(lambda: logged(site, "fenced", job_id) == 1, "it to be fenced")
    assert site.row(job_id).state == JobState.RUNNING
    assert results_of(site, job_id) == {result}
    # And the other one counts
    site.postgres_proxy.release(statement)
    assert_done_once(site, [job_id], attempt=2)
    assert site.row(job_id).result_file == result


def results_of(deployment: BreakableDeployment, job_id: UUID) -> set[str]:
    return {name for name in deployment.files("results") if name.startswith(str(job_id))}


# --- Told to stop --------------------------------------------------------------------------------------------


def test_a_short_job_may_finish_while_its_worker_stops(site: BreakableDeployment) -> None:
    with Gate(site) as gate:
        job_id = site.submit(gate.request, SLOW_MODEL)
        wait_until_running(site, job_id)
        name = owner_of(site, job_id)
        log = site.log_of(name)
        known = log.read_text().count("Shutting down...")
        # Once: Dramatiq takes a second signal for «at once».
        stopping = site.processes.pop(name)
        stopping.terminate()
        wait_for(lambda: log.read_text().count("Shutting down...") > known, "the worker to know")
    assert stopping.wait(LIMIT_SECONDS) == 0
    assert site.row(job_id).state == JobState.SUCCEEDED
    assert_done_once(site, [job_id])


def test_a_long_job_is_given_back_uncounted(site: BreakableDeployment) -> None:
    # Given a worker that may take one second to stop, alone
    site.stop(*WORKERS)
    site.start_worker("hasty", environment={"SEGINT_DRAIN_SECONDS": "1"})
    with Gate(site) as gate:
        job_id = site.submit(gate.request, SLOW_MODEL)
        wait_until_running(site, job_id)
        # When it is told to stop while its job runs
        site.stop("hasty")
        # Then the job waits for another worker, with all its attempts, and not for any lease
        given_back = site.row(job_id)
        assert (given_back.state, given_back.attempt) == (JobState.QUEUED, 0)
        site.start_worker("one", until_ready=True)
    assert_done_once(site, [job_id])


# --- Which job next ------------------------------------------------------------------------------------------


def test_an_interactive_job_never_waits_behind_a_busy_worker_while_another_is_idle(site: BreakableDeployment) -> None:
    # Given a busy worker and an idle one
    with Gate(site) as gate:
        batch = site.submit(gate.request, SLOW_MODEL)
        wait_until_running(site, batch)
        # When interactive jobs come, one after the other
        for _ in range(5):
            # Then the idle one takes each, though doorbells are anonymous
            assert_done_once(site, [site.submit(sleeping(0), SLOW_MODEL)])
        assert site.row(batch).state == JobState.RUNNING
    assert_done_once(site, [batch])


def test_interactive_comes_before_batch(site: BreakableDeployment) -> None:
    # Given jobs that come while there is no worker, the batch ones first
    site.stop(*WORKERS)
    path = "/api/v2/Model/Centered%20Orange%20Square/segmentation"
    responses = [site.post(path, request_body(), SegInt_Priority="batch") for _ in range(2)]
    batch = [decode_task(response.content).segmentation_id for response in responses]
    interactive = site.submit()
    # When one comes, which claims one job after the other, Then the interactive one is the first to be taken
    site.start_worker("one")
    for job_id in [*batch, interactive]:
        assert site.finished(job_id).percent == 100
    started = {job_id: site.row(job_id).started_at for job_id in [*batch, interactive]}
    assert min(started, key=lambda job_id: str(started[job_id])) == interactive
