"""Files without a row go, rows without their file fail, and neither at first sight."""

import asyncio
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest

from services.api.metrics import Metrics
from services.api.orphans import Orphans
from services.core.blobs import Blobs
from services.core.db import claims
from services.core.db.session import AsyncDatabase
from services.core.errors import StorageAway
from services.core.jobs import JobErrorCode, JobState
from services.core.settings import Settings
from tests.conftest import MakeDeployment
from tests.deployment import Deployment, wait_for

ORPHAN_SECONDS = 2


@pytest.fixture
def deployment(own_deployment: MakeDeployment) -> Deployment:
    return own_deployment(orphan_seconds=ORPHAN_SECONDS, upload_limit_seconds=1).import_sample().start_api()


def test_files_that_no_row_names_are_deleted_and_others_are_not(deployment: Deployment) -> None:
    # Given what crashes leave behind: uploads, results of fenced attempts, model files, a probe
    kept = f"{deployment.submit()}.pb"
    strays = {
        "segmentation": [f"{uuid4()}.pb.part", f"{uuid4()}.pb", f".probe-{uuid4().hex}"],
        "results": [f"{uuid4()}.{uuid4()}.pb", f"{uuid4()}.{uuid4()}.pb.part"],
        "models": [uuid4().hex, f"{uuid4().hex}.part"],
    }
    # and files that somebody else put there
    others = {"segmentation": [".nfs0000001", "README.txt"], "results": [], "models": ["my model.pt"]}
    for folder, names in strays.items():
        for name in [*names, *others[folder]]:
            (deployment.volume_dir / folder / name).write_bytes(b"x")
    # When the janitor has seen them for long enough, Then the first are gone
    gone = {name for names in strays.values() for name in names}
    wait_for(lambda: not gone & set(deployment.files(*strays)), "the strays to go")
    # and nothing else is
    assert deployment.files("segmentation") == sorted([kept, *others["segmentation"]])
    assert deployment.files("models") == others["models"]


def test_a_running_attempts_result_is_no_stray(deployment: Deployment) -> None:
    # Given a running job, and a result file under its token and under one that it had before
    job_id = deployment.submit()
    database = deployment.database()
    claim = database.run(claims.claim, worker="w", lease_seconds=600)
    database.close()
    assert claim is not None
    own, older = (f"{job_id}.{token}.pb" for token in (claim.token, uuid4()))
    for name in (own, f"{own}.part", older):
        (deployment.volume_dir / "results" / name).write_bytes(b"x")
    # Then only the older one goes
    wait_for(lambda: older not in deployment.files("results"), "the older attempt's file to go")
    assert deployment.files("results") == sorted([own, f"{own}.part"])


def test_a_waiting_job_without_its_input_fails_with_a_reason(deployment: Deployment) -> None:
    job_id = deployment.submit()
    (deployment.volume_dir / "segmentation" / f"{job_id}.pb").unlink()
    progress = deployment.finished(job_id)
    assert progress.error_code is JobErrorCode.INTERNAL
    assert "not on the server's volume any more; submit it again" in progress.error_text


def test_a_succeeded_job_without_its_result_fails_with_a_reason(deployment: Deployment) -> None:
    job_id = finished(deployment)
    (deployment.volume_dir / "results" / str(deployment.row(job_id).result_file)).unlink()
    wait_for(lambda: deployment.row(job_id).state == JobState.FAILED, "the janitor to notice")
    assert "result is not on the server's volume any more" in deployment.progress(job_id).error_text


def finished(deployment: Deployment) -> UUID:
    deployment.start_worker()
    job_id = deployment.submit()
    assert deployment.finished(job_id).percent == 100
    return job_id


# --- When they are believed ----------------------------------------------------------------------------------


def test_a_name_must_be_an_orphan_in_every_look(new_settings: Callable[..., Settings]) -> None:
    """As where a network filesystem's listing lags, and where the volume is away in between."""
    settings = new_settings(orphan_seconds=100, upload_limit_seconds=50)
    blobs = Blobs(settings.volume_dir)
    blobs.prepare()
    stray = settings.volume_dir / "segmentation" / f"{uuid4()}.pb"
    results = settings.volume_dir / "results"
    passed_seconds = 0.0

    async def look(orphans: Orphans) -> bool:
        """Whether the stray is still there after a look 40 s later."""
        nonlocal passed_seconds
        passed_seconds += 40
        await orphans.look()
        return stray.exists()

    async def story() -> None:
        database = AsyncDatabase(settings.database_url)
        orphans = Orphans(settings, database, blobs, Metrics(), clock=lambda: passed_seconds)
        # Given a stray that is there, then not, then there again
        for _ in range(3):
            stray.write_bytes(b"x")
            assert await look(orphans)
            assert await look(orphans)
            stray.unlink()
            assert not await look(orphans)
        # and one whose looks are broken off by a volume that is away
        stray.write_bytes(b"x")
        assert await look(orphans)
        assert await look(orphans)
        results.rename(results.with_name("away"))
        with pytest.raises(StorageAway):
            await look(orphans)
        results.with_name("away").rename(results)
        # Then the wait begins anew, and ends in the end
        assert [await look(orphans) for _ in range(4)] == [True, True, True, False]
        await database.close()

    asyncio.run(story())
