"""An API process is killed: what it had accepted runs, what it had not leaves nothing, and another one takes over."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psycopg
import pytest

from services.core.db.locks import Lock
from services.core.jobs import JobState
from services.core.queue import Doorbell
from tests.deployment import PROTOBUF, request_body, wait_for
from tests.faults.breakable import BreakableDeployment
from tests.faults.conftest import MakeBreakable
from tests.faults.processes import frozen, kill, worker_processes

SUBMIT = "/api/v2/Model/Centered%20Orange%20Square/segmentation"


@pytest.fixture(scope="module")
def lasting(new_breakable: MakeBreakable) -> BreakableDeployment:
    return (
        new_breakable(upload_limit_seconds=6, upload_idle_seconds=6, orphan_seconds=8)
        .import_sample()
        .start_worker(until_ready=True)
    )


@pytest.fixture
def site(lasting: BreakableDeployment) -> BreakableDeployment:
    """With one API process, whatever an earlier test has done to it."""
    if "api" not in lasting.processes:
        lasting.start_api()
    return lasting


def test_a_job_whose_doorbell_its_api_could_not_ring_any_more_runs(site: BreakableDeployment) -> None:
    # Given an upload that was accepted while nothing reached Redis
    site.redis_proxy.freeze()
    job_id = site.submit()
    # When its API process is killed before the doorbell arrives
    kill(site, "api")
    site.redis_proxy.cut()
    site.redis_proxy.thaw()
    doorbell = Doorbell(site.redis.url, site.settings.redis_namespace)
    assert doorbell.waiting() == 0
    doorbell.close()
    assert site.row(job_id).state == JobState.QUEUED
    # Then another one's janitor rings, and the job runs
    site.start_api()
    assert site.finished(job_id).percent == 100
    assert site.row(job_id).attempt == 1


def test_an_upload_that_its_api_did_not_live_to_receive_leaves_nothing(site: BreakableDeployment) -> None:
    body = request_body()
    head = f"POST {SUBMIT} HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", site.port), timeout=30) as connection:
        known = set(site.files("segmentation"))
        connection.sendall(head.encode() + body[:1000])
        wait_for(lambda: begun_since(site, known), "the upload to be under way")
        before = jobs_of(site)
        kill(site, "api")
    assert jobs_of(site) == before
    site.start_api()
    wait_for(lambda: not site.files("segmentation"), "what had arrived to be deleted")


def test_an_upload_that_its_api_did_not_live_to_commit_leaves_nothing(site: BreakableDeployment) -> None:
    # Given an upload that is whole on the volume, with its row under way to the database
    trap = site.postgres_proxy.hold("INSERT INTO segmentation_job ")
    known = set(site.files("segmentation"))
    with uploading(site) as outcomes:
        trap.wait()
        [file] = set(site.files("segmentation")) - known
        assert file.endswith(".pb")
        before = jobs_of(site)
        # When the API process is killed
        kill(site, "api")
        site.postgres_proxy.cut()
    # Then its client knows that nothing was accepted, and so it is
    [outcome] = outcomes
    assert isinstance(outcome, httpx.TransportError)
    assert jobs_of(site) == before
    site.start_api()
    wait_for(lambda: not site.files("segmentation"), "the file that no row names to be deleted")


def test_the_janitor_s_work_is_taken_over_from_one_that_was_killed_at_it(site: BreakableDeployment) -> None:
    # Given two API processes, one of which is in the middle of a janitor's round, with its lock
    site.start_api("second")
    trap = site.postgres_proxy.hold("INSERT INTO janitor_round")
    trap.wait()
    leader = lock_holder(site)
    [other] = {"api", "second"} - {leader}
    # When it is killed
    kill(site, leader)
    site.postgres_proxy.cut()
    # Then the other one rings for a job whose doorbell is lost
    with frozen(worker_processes(site)):
        job_id = site.at(other).submit()
        with site.redis.client() as client:
            client.flushall()
    assert site.at(other).finished(job_id).percent == 100
    site.stop(other)


def begun_since(deployment: BreakableDeployment, known: set[str]) -> bool:
    """Whether an upload has begun whose file was not there before."""
    return any(name.endswith(".part") for name in set(deployment.files("segmentation")) - known)


def jobs_of(deployment: BreakableDeployment) -> int:
    with psycopg.connect(deployment.postgres.url("segint")) as connection:
        found = connection.execute("SELECT count(*) FROM segmentation_job").fetchone()
    assert found is not None
    return int(found[0])


def lock_holder(deployment: BreakableDeployment) -> str:
    """The process that holds the janitor's lock, by the name it gives PostgreSQL."""
    with psycopg.connect(deployment.postgres.url("segint")) as connection:
        found = connection.execute(
            "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) "
            "WHERE locktype = 'advisory' AND objid = %s AND granted",
            (int(Lock.JANITOR),),
        ).fetchall()
    [(name,)] = found
    return str(name)


@contextmanager
def uploading(deployment: BreakableDeployment) -> Iterator[list[httpx.Response | httpx.TransportError]]:
    """An upload in a thread; what came of it is in the list at the end."""
    outcomes: list[httpx.Response | httpx.TransportError] = []

    def upload() -> None:
        try:
            outcomes.append(deployment.post(SUBMIT, request_body()))
        except httpx.TransportError as error:
            outcomes.append(error)

    thread = threading.Thread(target=upload)
    thread.start()
    try:
        yield outcomes
    finally:
        thread.join()
