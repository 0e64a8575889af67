"""A worker whose clock is wrong by minutes: no lease ends early, none is kept too long, doorbells are heard."""

import time
from datetime import UTC, datetime

import pytest

from services.core.queue import Doorbell
from tests.deployment import wait_for
from tests.faults.breakable import BreakableDeployment
from tests.faults.clocks import skewed
from tests.faults.conftest import MakeBreakable
from tests.faults.processes import frozen, kill_worker, worker_processes
from tests.faults.verdicts import assert_done_once, logged
from tests.log_lines import logged_records
from tests.slow_model import SLOW_MODEL, Gate, sleeping, wait_until_running, with_slow_model

LEASE_SECONDS = 8
SKEW_SECONDS = 300


@pytest.fixture(scope="module")
def site(new_breakable: MakeBreakable, tmp_path_factory: pytest.TempPathFactory) -> BreakableDeployment:
    """An API and a worker whose clocks are right."""
    deployment = new_breakable(lease_seconds=LEASE_SECONDS, heartbeat_seconds=1, retry_delay_seconds=0)
    with_slow_model(deployment, tmp_path_factory.mktemp("slow"))
    return deployment.start_api().start_worker("right", until_ready=True)


@pytest.mark.parametrize("skew_seconds", [SKEW_SECONDS, -SKEW_SECONDS], ids=["ahead", "behind"])
def test_a_worker_with_a_wrong_clock_works_as_any_other(site: BreakableDeployment, skew_seconds: int) -> None:
    # Given a worker whose clock is wrong, beside one whose clock is right
    wrong = "ahead" if skew_seconds > 0 else "behind"
    site.start_worker(wrong, environment=skewed(skew_seconds), until_ready=True)
    assert abs(last_logged_at(site, wrong) - time.time() - skew_seconds) < SKEW_SECONDS / 2
    with frozen(worker_processes(site, "right")), Gate(site) as gate:
        # When it runs a job for longer than its lease
        job_id = site.submit(gate.request, SLOW_MODEL)
        wait_until_running(site, job_id)
        first = site.row(job_id).lease_expires_at
        assert first is not None
        assert abs((first - datetime.now(UTC)).total_seconds()) < LEASE_SECONDS + 1
        wait_for(lambda: datetime.now(UTC) > first, "its first lease to end")
        # Then it keeps it
        gate.open()
        assert_done_once(site, [job_id])

    # When both hear doorbells, more than there are jobs
    jobs = [site.submit(sleeping(1), SLOW_MODEL) for _ in range(6)]
    doorbell = Doorbell(site.redis.url, site.settings.redis_namespace)
    doorbell.ring(6)
    # Then each job runs once
    assert_done_once(site, jobs)
    assert [logged(site, "claimed", job_id) for job_id in jobs] == [1] * 6
    wait_for(lambda: doorbell.waiting() == 0, "every doorbell to be answered")
    doorbell.close()

    # When it dies at work
    with Gate(site) as gate:
        with frozen(worker_processes(site, "right")):
            job_id = site.submit(gate.request, SLOW_MODEL)
            wait_until_running(site, job_id)
            kill_worker(site, wrong)
            died_at = time.monotonic()
        # Then its lease ends as any other's
        wait_for(lambda: site.row(job_id).attempt == 2, "the second attempt")
        # A janitor that was held up for a third of a lease takes it for an outage, and waits for another lease.
        assert time.monotonic() - died_at < 4 * LEASE_SECONDS
    assert_done_once(site, [job_id], attempt=2)


def last_logged_at(deployment: BreakableDeployment, name: str) -> float:
    """Seconds since the epoch, by that process's own clock."""
    return datetime.fromisoformat(logged_records(deployment.log_of(name))[-1]["time"]).timestamp()
