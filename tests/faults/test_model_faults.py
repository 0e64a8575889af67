"""A model takes its process, its worker or the memory with it: its own job fails in words, and no other notices."""

from collections.abc import Iterator
from uuid import UUID

import numpy as np
import psutil
import psycopg
import pytest

from services.core.jobs import JobErrorCode, JobState
from services.core.volumes import Volume
from tests.deployment import request_body, wait_for
from tests.faults.breakable import BreakableDeployment
from tests.faults.conftest import MakeBreakable
from tests.faults.processes import Supervisor, hosts_of
from tests.faults.verdicts import assert_done_once, files_of
from tests.slow_model import SLOW_MODEL, Gate, wait_until_running, with_slow_model
from tests.worker.models import SHAPE, Behaviour, faulty_spec

ATTEMPT_LIMIT = 2
VERDICT_LIMIT_SECONDS = 180.0
"""At every attempt a worker may have to start anew, and a lease to end."""
MEMORY_LIMIT_BYTES = 1024**3
"""A model host takes some 300 MB before it begins."""

FAMILY = """{
  "CanonicalName": "Faulty",
  "FamilyDescription": {"InputChannels": [{"ChannelID": "CT"}]},
  "ModelVersions": [{"ID": "faulty", "Structures": [{"Name": "Brain", "StructureID": "brain"}]}]
}"""


@pytest.fixture(scope="module")
def site(new_breakable: MakeBreakable, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BreakableDeployment]:
    """Two workers that are started again when they die."""
    deployment = new_breakable(
        attempt_limit=ATTEMPT_LIMIT,
        jobs_at_once=1,  # nobody else's job in the worker that a model kills, however late the other one claims
        lease_seconds=8,
        heartbeat_seconds=1,
        retry_delay_seconds=0,
        model_memory_bytes=MEMORY_LIMIT_BYTES,
    )
    with_slow_model(deployment, tmp_path_factory.mktemp("slow"))
    spec = faulty_spec(tmp_path_factory.mktemp("faulty"))
    with deployment.library() as library:
        library.import_family_json(FAMILY)
        library.attach("faulty", runtime="pytorch", file=spec.artifact, module=spec.module)
    deployment.start_api()
    for name in ("one", "two"):
        deployment.start_worker(name, until_ready=True)
    with Supervisor(deployment):
        yield deployment


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (Behaviour.SEGFAULTS, "SIGSEGV"),
        (Behaviour.EATS_MEMORY, "SEGINT_MODEL_MEMORY_BYTES"),
        (Behaviour.KILLS_ITS_PARENT, "its worker stopped answering"),
    ],
    ids=lambda value: value.name.lower() if isinstance(value, Behaviour) else "",
)
def test_a_model_that_kills_fails_its_own_job_only(site: BreakableDeployment, behaviour: Behaviour, words: str) -> None:
    # Given somebody else's job in one of the workers
    with Gate(site) as gate:
        innocent = site.submit(gate.request, SLOW_MODEL)
        wait_until_running(site, innocent)
        # When a model does that at every attempt
        job_id = site.submit(asking_for(behaviour), "faulty")
        progress = site.finished(job_id, "faulty", VERDICT_LIMIT_SECONDS)
        # Then its job fails at the limit, in words, and nothing of it is left
        row = site.row(job_id)
        assert (row.state, row.attempt) == (JobState.FAILED, ATTEMPT_LIMIT)
        assert progress.error_code is JobErrorCode.INTERNAL
        assert f"did not finish in {ATTEMPT_LIMIT} attempts" in progress.error_text
        assert words in progress.error_text
        assert [name for name in files_of(site, job_id) if name in site.files("results")] == []
        wait_for(lambda: not strays(site, job_id), "every process of the model to be gone")
    # And the other job never noticed
    assert_done_once(site, [innocent])


def asking_for(behaviour: Behaviour) -> bytes:
    voxels = np.ones(SHAPE, np.int16)
    voxels[0, 0, 0] = behaviour
    return request_body(Volume(voxels, channel_id="CT"))


def strays(deployment: BreakableDeployment, job_id: UUID) -> list[psutil.Process]:
    """Model hosts of workers that ran this job which are below no living worker; a warm one is not meant."""
    with psycopg.connect(deployment.postgres.url("segint")) as connection:
        workers = connection.execute(
            "SELECT DISTINCT worker FROM job_event WHERE job_id = %s AND kind = 'claimed'", (job_id,)
        ).fetchall()
    assert workers
    pids = {worker.rpartition(":")[2] for (worker,) in workers}
    warm = {host.pid for name in ("one", "two") for host in hosts_of(deployment, name)}
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.pid not in warm
        and "services.worker.host_process" in (command := process.info["cmdline"] or [])
        and pids & set(command)
    ]
