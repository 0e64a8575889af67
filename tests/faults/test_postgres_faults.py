"""PostgreSQL restarts, goes away, freezes, or its replies get lost: no attempt is lost by it, nothing is done twice."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from uuid import UUID

import psutil
import pytest

from services.core.jobs import JobState
from tests.deployment import http, request_body, wait_for
from tests.faults.breakable import BreakableDeployment
from tests.faults.conftest import MakeBreakable
from tests.faults.processes import freeze, frozen, kill_at_once, thaw, worker_processes
from tests.faults.servers import FAST, IMMEDIATE
from tests.faults.verdicts import assert_done_once, files_of, logged
from tests.log_lines import logged_records
from tests.slow_model import SLOW_MODEL, Gate, sleeping, wait_until_running, with_slow_model

LEASE_SECONDS = 8
SUBMIT = "/api/v2/Model/Centered%20Orange%20Square/segmentation"
ANSWER_BOUND_SECONDS = 38.0
"""The API waits for an answer for 20 s; clients that waited one after the other would take twice as long."""

CLAIM = ("UPDATE segmentation_job", "SKIP LOCKED")
HEARTBEAT = ("UPDATE segmentation_job", "greatest(")
FINISH = ("UPDATE segmentation_job", "stage_seconds=")
TOLD = "INSERT INTO job_event"
"""What a claim or an end that did change a job commits as well; others look and find nothing."""
ACCEPT = ("INSERT INTO segmentation_job ",)
"""What tells the statements that matter most from others."""


@pytest.fixture(scope="module")
def lasting(new_breakable: MakeBreakable, tmp_path_factory: pytest.TempPathFactory) -> BreakableDeployment:
    deployment = new_breakable(lease_seconds=LEASE_SECONDS, heartbeat_seconds=1, retry_delay_seconds=0)
    with_slow_model(deployment.import_sample(), tmp_path_factory.mktemp("slow"))
    return deployment.start_api()


@pytest.fixture
def alone(lasting: BreakableDeployment) -> BreakableDeployment:
    """With one worker: what it does not claim, nobody does."""
    return with_workers(lasting, "one")


@pytest.fixture
def pair(lasting: BreakableDeployment) -> BreakableDeployment:
    """With two workers."""
    return with_workers(lasting, "one", "two")


@pytest.fixture
def one_job_each(lasting: BreakableDeployment) -> BreakableDeployment:
    """With two workers, neither of which takes the other's job, however late that one is to claim it."""
    return with_workers(lasting, "three", "four", jobs_at_once=1)


def with_workers(deployment: BreakableDeployment, *names: str, jobs_at_once: int = 3) -> BreakableDeployment:
    """With these workers and no other."""
    if others := deployment.processes.keys() - {"api", *names}:
        deployment.stop(*others)
    for name in names:
        if name not in deployment.processes:
            environment = {"SEGINT_JOBS_AT_ONCE": str(jobs_at_once)}
            deployment.start_worker(name, environment=environment, until_ready=True)
    return deployment


# --- Restarts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [FAST, IMMEDIATE], ids=["fast", "immediate"])
@pytest.mark.parametrize("moment", [CLAIM, HEARTBEAT, FINISH], ids=["claim", "heartbeat", "finish"])
def test_a_restart_costs_no_attempt(alone: BreakableDeployment, how: signal.Signals, moment: tuple[str, ...]) -> None:
    # Given a job at that moment of its life
    with Gate(alone) as gate:
        with frozen(worker_processes(alone, "one")):  # so that no earlier doorbell springs the trap
            job_id = alone.submit(gate.request, SLOW_MODEL)
            trap = alone.postgres_proxy.hold(*moment)
        if moment is FINISH:
            gate.open()
        trap.wait()
        # When PostgreSQL restarts, Then the statement that was under way is lost
        alone.postgres.restart(how)
        alone.postgres_proxy.release(trap)
        if moment is not FINISH:
            assert alone.row(job_id).state in {JobState.QUEUED, JobState.RUNNING}
    # And the job is done once, at its first attempt
    assert_done_once(alone, [job_id])
    assert logged(alone, "claimed", job_id) == 1


# --- Lost replies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "attempt"),
    [(CLAIM, 2), (HEARTBEAT, 1), (FINISH, 1)],
    ids=["claim: nobody knows of it, so its lease has to end", "heartbeat", "finish"],
)
def test_a_lost_reply_to_a_commit_loses_no_job(
    alone: BreakableDeployment, moment: tuple[str, ...], attempt: int
) -> None:
    with Gate(alone) as gate:
        with frozen(worker_processes(alone, "one")):
            job_id = alone.submit(gate.request, SLOW_MODEL)
            trap = alone.postgres_proxy.lose_reply("COMMIT", *moment, *([] if moment is HEARTBEAT else [TOLD]))
        if moment is FINISH:
            gate.open()
        trap.wait()
    assert_done_once(alone, [job_id], attempt=attempt)
    assert logged(alone, "claimed", job_id) == 1


def test_an_upload_whose_commit_got_no_reply_is_found_and_runs(alone: BreakableDeployment) -> None:
    # When nobody has told the API whether the row is there
    trap = alone.postgres_proxy.lose_reply("COMMIT", *ACCEPT)
    job_id = alone.submit(sleeping(0), SLOW_MODEL)
    trap.wait()
    # Then it has looked, and the client need not send everything again
    assert_done_once(alone, [job_id])


# --- Outages -------------------------------------------------------------------------------------------------


@contextmanager
def stopped(deployment: BreakableDeployment) -> Iterator[None]:
    deployment.postgres.end(FAST)
    try:
        yield
    finally:
        deployment.postgres.start()


def standing_still(deployment: BreakableDeployment) -> AbstractContextManager[None]:
    return frozen(deployment.postgres.processes())


@pytest.mark.parametrize("outage", [stopped, standing_still], ids=["stopped", "frozen"])
def test_an_outage_longer_than_a_lease_requeues_nothing(
    one_job_each: BreakableDeployment, outage: Callable[[BreakableDeployment], AbstractContextManager[None]]
) -> None:
    # Given two workers at work
    site = one_job_each
    with Gate(site) as gate:
        jobs = [site.submit(gate.request, SLOW_MODEL) for _ in range(2)]
        for job_id in jobs:
            wait_until_running(site, job_id)
        # When PostgreSQL is away for so long that both leases end
        with outage(site):
            time.sleep(LEASE_SECONDS + 2)
        assert [site.row(job_id).attempt for job_id in jobs] == [1, 1]
        # Then both workers renew them, and go on
        wait_for(lambda: all(not lease_has_ended(site, job_id) for job_id in jobs), "the leases to be renewed")
    assert_done_once(site, jobs)
    assert [logged(site, "claimed", job_id) for job_id in jobs] == [1, 1]


def lease_has_ended(deployment: BreakableDeployment, job_id: UUID) -> bool:
    expires_at = deployment.row(job_id).lease_expires_at
    return expires_at is None or expires_at < datetime.now(UTC)


def test_a_result_waits_for_a_database_that_is_away(alone: BreakableDeployment) -> None:
    """The work of minutes is not thrown away because its last statement finds nobody."""
    with Gate(alone) as gate:
        job_id = alone.submit(gate.request, SLOW_MODEL)
        wait_until_running(alone, job_id)
        with stopped(alone):
            gate.open()
            wait_for(
                lambda: any(name.endswith(".pb") for name in files_of(alone, job_id) if name in alone.files("results")),
                "the result",
            )
    assert_done_once(alone, [job_id])
    assert logged(alone, "claimed", job_id) == 1


def test_a_database_that_is_away_is_503_and_back_again(alone: BreakableDeployment) -> None:
    deployment = alone
    job_id = deployment.submit()
    deployment.finished(job_id)
    before = deployment.files()
    with stopped(deployment):
        # What needs it is refused with Retry-After, nothing is stored, and the process stays alive
        for response in (
            deployment.get("/api/v2/Model/"),
            deployment.get(f"{SUBMIT}/{job_id}"),
            deployment.post(SUBMIT, request_body()),
            deployment.post("/api/v2/Feedback/segmentation"),
        ):
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) > 0
        assert set(deployment.files()) <= set(before)
        assert http.get(deployment.url + "/healthz").status_code == 200
        ready = http.get(deployment.url + "/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
        assert "segint_database_up 0.0" in http.get(deployment.url + "/metrics").text
    # When it is back, so is everything
    wait_for(lambda: http.get(deployment.url + "/readyz").status_code == 200, "the API to be ready again")
    assert deployment.progress(job_id).error_text == ""


# --- Frozen backends -----------------------------------------------------------------------------------------


def test_a_frozen_backend_does_not_stop_a_worker_s_heartbeat(alone: BreakableDeployment) -> None:
    # Given a job that runs
    with Gate(alone) as gate:
        job_id = alone.submit(gate.request, SLOW_MODEL)
        wait_until_running(alone, job_id)
        # When every backend that serves its worker freezes, for longer than the lease
        backends = wait_for(lambda: frozen_backends_of(alone, "one", job_id), "backends that freeze without the job")
        try:
            time.sleep(LEASE_SECONDS + 2)
            # Then the worker has renewed it over another one, and can finish
            gate.open()
            assert_done_once(alone, [job_id])
        finally:
            thaw(backends)
    assert logged(alone, "claimed", job_id) == 1


def frozen_backends_of(deployment: BreakableDeployment, name: str, job_id: UUID) -> list[psutil.Process]:
    """A process's backends, frozen; none, and nothing frozen, if one of them was just changing that job."""
    backends = deployment.postgres.backends_of(name)
    freeze(backends)
    if deployment.postgres.locker_of(job_id):
        thaw(backends)
        return []
    return backends


@pytest.mark.parametrize("healed_by", [thaw, kill_at_once], ids=["thawed", "killed"])
def test_a_backend_frozen_in_a_transaction_holds_up_its_own_job_alone(
    pair: BreakableDeployment, healed_by: Callable[[Sequence[psutil.Process]], None]
) -> None:
    # Given a job whose success is all but committed, by a backend that freezes there
    trap = pair.postgres_proxy.hold("COMMIT", *FINISH, TOLD)
    job_id = pair.submit(sleeping(1), SLOW_MODEL)
    trap.wait()
    [backend] = pair.postgres.locker_of(job_id)
    with frozen([backend]):
        pair.postgres_proxy.release(trap)
        # Then others go on, though its worker waits
        assert_done_once(pair, [pair.submit(sleeping(0), SLOW_MODEL)])
        # And the janitor says whose process holds it up
        wait_for(lambda: held_up_by(pair, job_id) == backend.pid, "the janitor to tell")
        assert pair.row(job_id).state == JobState.RUNNING
        # When that goes on, or the administrator has ended it
        healed_by([backend])
        # Then the job is done, once
        wait_for(lambda: pair.get("/api/v2/Model/").status_code == 200, "the API to have its database")
        pair.finished(job_id, SLOW_MODEL)
        assert_done_once(pair, [job_id], attempt=pair.row(job_id).attempt)


def held_up_by(deployment: BreakableDeployment, job_id: UUID) -> int | None:
    told = logged_records(deployment.log_of("api"), "holds up a job", str(job_id))
    return told[-1]["backend_pid"] if told else None


def test_frozen_backends_are_503_within_the_api_s_limit_and_are_replaced(alone: BreakableDeployment) -> None:
    # Given a server that is frozen, and with it the API's backends
    backends = alone.postgres.backends_of("api")
    assert backends
    with frozen(backends):
        with standing_still(alone), ThreadPoolExecutor(4) as clients:
            # When several clients ask at the same time
            started = time.monotonic()
            models = alone.url + "/api/v2/Model/"
            statuses = list(clients.map(lambda _: http.get(models, timeout=90).status_code, range(4)))
            # Then each gets an answer in time
            assert time.monotonic() - started < ANSWER_BOUND_SECONDS
            assert set(statuses) == {503}
        # And where the server goes on but for those backends, other connections take over
        freeze(backends)
        wait_for(lambda: alone.get("/api/v2/Model/").status_code == 200, "the API to answer again")
    assert_done_once(alone, [alone.submit(sleeping(0), SLOW_MODEL)])
