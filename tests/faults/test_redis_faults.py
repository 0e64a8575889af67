"""Redis dies, forgets, freezes, fills up, or its replies get lost: no job is lost, none runs twice."""

import re
import time
from uuid import UUID

import pytest
import redis

from services.core.jobs import JobState
from services.core.queue import QUEUE_NAME, Doorbell
from tests.deployment import wait_for
from tests.faults.breakable import BreakableDeployment
from tests.faults.conftest import MakeBreakable
from tests.faults.processes import freeze, frozen, thaw, worker_processes
from tests.faults.proxy import argument
from tests.faults.verdicts import assert_done_once, logged
from tests.slow_model import SLOW_MODEL, Gate, sleeping, wait_until_running, with_slow_model

WORKERS = ("one", "two")
FREEZE_SECONDS = 60
BOUND_SECONDS = 3.0
"""Generous: the API's patience with Redis is one second, and no request waits for it at all."""
LATE_SHARE = 0.1
"""Of requests, which a pause of the machine may hold up for longer; what Redis holds up is every one."""


@pytest.fixture(scope="module")
def site(new_breakable: MakeBreakable, tmp_path_factory: pytest.TempPathFactory) -> BreakableDeployment:
    """One deployment for all of these tests: that it is whole again after each fault is part of what they say."""
    # One job to a worker, so that what waits, waits for its doorbell and not within a worker.
    deployment = new_breakable(jobs_at_once=1, lease_seconds=30, heartbeat_seconds=1)
    with_slow_model(deployment, tmp_path_factory.mktemp("slow")).start_api()
    for name in WORKERS:
        deployment.start_worker(name)
    warm(deployment)
    return deployment


def warm(deployment: BreakableDeployment) -> None:
    """Until both workers have the model loaded, and so run side by side whatever is submitted together."""
    with Gate(deployment) as gate:
        jobs = [deployment.submit(gate.request, SLOW_MODEL) for _ in WORKERS]
        for job_id in jobs:
            wait_until_running(deployment, job_id)
    assert_done_once(deployment, jobs)


def submit(deployment: BreakableDeployment) -> UUID:
    return deployment.submit(sleeping(0), SLOW_MODEL)


def doorbells(deployment: BreakableDeployment) -> int:
    with deployment.redis.client() as client:
        return int(client.llen(f"{deployment.settings.redis_namespace}:{QUEUE_NAME}"))


def janitor_rounds(deployment: BreakableDeployment) -> float:
    [rounds] = re.findall(r'^segint_janitor_rounds_total{loop="queue"} (.*)$', deployment.get("/metrics").text, re.M)
    return float(rounds)


@pytest.mark.parametrize("how", ["killed without persistence", "flushed"])
def test_jobs_survive_a_redis_that_forgets(site: BreakableDeployment, how: str) -> None:
    # Given two running jobs and three queued ones
    with Gate(site) as gate:
        jobs = [site.submit(gate.request, SLOW_MODEL) for _ in range(5)]
        for job_id in jobs[:2]:
            wait_until_running(site, job_id)
        wait_for(lambda: doorbells(site) > 0, "the doorbells of the others")
        # When Redis loses everything
        if how == "flushed":
            with site.redis.client() as client:
                client.flushall()
        else:
            site.redis.kill()
            site.redis.lose_everything()
            site.redis.start()
    # Then all of them finish, once
    assert_done_once(site, jobs)
    assert [logged(site, "claimed", job_id) for job_id in jobs] == [1] * 5


def test_a_lost_reply_to_enqueue_costs_nothing(site: BreakableDeployment) -> None:
    trap = site.redis_proxy.lose_reply(argument("enqueue"))
    jobs = [submit(site) for _ in range(3)]
    trap.wait()
    assert_done_once(site, jobs)


def test_a_lost_reply_to_fetch_costs_nothing(site: BreakableDeployment) -> None:
    """The doorbell is off the queue then, and no worker has heard it: the janitor rings again."""
    # Given a job whose doorbell is on the queue, because both workers stand still
    workers = [process for name in WORKERS for process in worker_processes(site, name)]
    with frozen(workers):
        job_id = submit(site)
        wait_for(lambda: doorbells(site) > 0, "the doorbell")
        # The janitor adds none, as one rings: what is fetched now is the only one.
        trap = site.redis_proxy.lose_reply(argument("fetch"), argument(QUEUE_NAME))
        # When one of them goes on, and the reply to its fetch is lost
        thaw(worker_processes(site, "one"))
        trap.wait()
    # Then the job runs all the same
    assert_done_once(site, [job_id])


def test_a_lost_reply_to_an_acknowledgement_costs_nothing(site: BreakableDeployment) -> None:
    trap = site.redis_proxy.lose_reply(argument("ack"))
    jobs = [submit(site) for _ in range(4)]
    trap.wait()
    assert_done_once(site, jobs)
    assert [logged(site, "claimed", job_id) for job_id in jobs] == [1] * 4


def test_a_second_delivery_of_a_doorbell_runs_nothing_twice(site: BreakableDeployment) -> None:
    # Given doorbells that no job asked for
    with frozen([process for name in WORKERS for process in worker_processes(site, name)]):
        jobs = [submit(site) for _ in range(2)]
        doorbell = Doorbell(site.redis.url, site.settings.redis_namespace)
        doorbell.ring(20)
        doorbell.close()
    # Then each is answered, and each job runs once
    assert_done_once(site, jobs)
    wait_for(lambda: doorbells(site) == 0, "every doorbell to be answered")
    assert [logged(site, "claimed", job_id) for job_id in jobs] == [1, 1]


def test_a_redis_at_its_memory_limit_delays_jobs_only(site: BreakableDeployment) -> None:
    with site.redis.client() as client:
        # Given a Redis that takes nothing more
        client.config_set("maxmemory", "1")
        try:
            with pytest.raises(redis.OutOfMemoryError):
                client.set("anything", "more")
            # Then uploads are accepted (workers stand still: one may have a doorbell of before in hand)
            with frozen([process for name in WORKERS for process in worker_processes(site, name)]):
                jobs = [submit(site) for _ in range(3)]
                assert {site.row(job_id).state for job_id in jobs} == {JobState.QUEUED}
        finally:
            client.config_set("maxmemory", "0")
    # And they run once it has room
    assert_done_once(site, jobs)


def test_a_frozen_redis_delays_no_request_and_jobs_only_until_it_thaws(site: BreakableDeployment) -> None:
    durations, jobs = [], []
    ends_at = time.monotonic() + FREEZE_SECONDS
    # Given a Redis that is frozen for a minute, while a job runs
    with Gate(site) as gate:
        running = site.submit(gate.request, SLOW_MODEL)
        wait_until_running(site, running)
        with frozen(site.redis.processes()):
            gate.open()
            # Then every submission and every poll is answered soon
            while time.monotonic() < ends_at:
                asked_at = time.monotonic()
                jobs.append(submit(site))
                submitted_at = time.monotonic()
                site.progress(jobs[0], SLOW_MODEL)
                durations += [submitted_at - asked_at, time.monotonic() - submitted_at]
                time.sleep(2)  # a client's pace, not a guess
            assert site.row(running).state == JobState.SUCCEEDED
    assert sum(duration > BOUND_SECONDS for duration in durations) <= LATE_SHARE * len(durations)
    assert max(durations) < FREEZE_SECONDS / 3
    # And everything runs once it thaws
    assert_done_once(site, [running, *jobs])


def test_without_redis_uploads_are_accepted_and_run_once_it_is_back(site: BreakableDeployment) -> None:
    # Given Redis away, uploads are taken, and the server calls itself degraded, not down
    site.redis.stop()
    job_id = submit(site)
    ready = site.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert site.progress(job_id, SLOW_MODEL).percent == 0
    # When it is back, the janitor rings for what waited
    site.redis.start()
    assert_done_once(site, [job_id])


def test_frozen_workers_are_no_reason_for_more_doorbells_than_jobs(site: BreakableDeployment) -> None:
    """The janitor tops up to the number of jobs, however many rounds it makes."""
    workers = [process for name in WORKERS for process in worker_processes(site, name)]
    freeze(workers)
    try:
        jobs = [submit(site) for _ in range(3)]
        # A worker may have asked for one before it was stopped, and get it: then the janitor rings again.
        wait_for(lambda: doorbells(site) >= 3, "the doorbells")
        rounds = janitor_rounds(site)
        wait_for(lambda: janitor_rounds(site) > rounds + 2 * len(jobs), "the janitor to make rounds")
        # An upload's own doorbell and one of the janitor's may have met: two for each job, and none for a round.
        assert 3 <= doorbells(site) <= 2 * len(jobs)
    finally:
        thaw(workers)
    assert_done_once(site, jobs)
