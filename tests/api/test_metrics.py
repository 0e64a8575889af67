"""GET /metrics while what it asks is away, with a large catalogue, and with a janitor that has work."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, update
from starlette.requests import Request

from services.api.metrics import Metrics
from services.api.metrics_page import MetricsPage, Question
from services.core.blobs import Blobs
from services.core.catalogue import ModelFamily, ModelVersion
from services.core.db import catalogue, claims
from services.core.db.session import AsyncDatabase, Database
from services.core.db.tables import SegmentationJobRow
from services.core.model_labels import MOST_MODELS, OTHER_MODELS
from services.core.queue import Doorbell
from services.core.settings import Settings
from tests.conftest import MakeDeployment
from tests.deployment import SAMPLE_MODEL, wait_for

SCRAPE_SECONDS = 10.0
"""What Prometheus gives a scrape, unless told otherwise."""


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Somebody listens there, and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def shown(database_url: str, redis_url: str, volume: Path, scrapes: int = 1) -> str:
    """The last of the answers of a process of its own."""

    async def ask() -> str:
        database = AsyncDatabase(database_url)
        doorbell = Doorbell(redis_url, "n")
        page = MetricsPage(Metrics(), database, Blobs(volume), doorbell)
        text = ""
        for _ in range(scrapes):
            text = bytes((await page.show(Request({"type": "http"}))).body).decode()
        await database.close()
        doorbell.close()
        return text

    return asyncio.run(ask())


def test_it_answers_soon_though_nothing_else_does(silent_port: int, tmp_path: Path) -> None:
    # Given a database and a Redis that take connections and fall silent, and a volume that is not there
    database_url, redis_url = f"postgresql://u:p@127.0.0.1:{silent_port}/x", f"redis://127.0.0.1:{silent_port}/0"
    # When it is scraped twice
    began = time.monotonic()
    text = shown(database_url, redis_url, tmp_path / "gone", scrapes=2)
    # Then it says so, within what a scrape is given, and tells nothing that it does not know
    assert time.monotonic() - began < 2 * SCRAPE_SECONDS
    for what in ("database", "redis", "volume"):
        assert f"segint_{what}_up 0.0" in text
    for unknown in ("segint_jobs{", "segint_doorbells_waiting", "segint_volume_free_bytes", "segint_workers"):
        assert unknown not in text
    assert 'segint_build_info{service="api"' in text


def test_what_never_answers_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.api.metrics_page.PATIENCE_SECONDS", 0.1)
    asked = 0

    async def story() -> None:
        answered = asyncio.Event()

        async def ask() -> int:
            nonlocal asked
            asked += 1
            await answered.wait()
            return 7

        question = Question(ask, "volume")
        # Given a question that is not answered, however often it is put
        for _ in range(3):
            assert await question.answer() == (False, None)
        assert asked == 1
        # When an answer comes at last, then it is not taken for one to the next question, which is put anew
        answered.set()
        await asyncio.sleep(0)
        assert await question.answer() == (True, 7)
        assert asked == 2

    asyncio.run(asyncio.wait_for(story(), 10))


def test_scrapes_at_the_same_moment_share_the_question() -> None:
    """Two Prometheus servers watch a cluster that is to be watched always; neither may be told that all is away."""
    asked = 0

    async def story() -> None:
        async def ask() -> int:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0.05)
            return 7

        question = Question(ask, "database")
        assert await asyncio.gather(*(question.answer() for _ in range(3))) == [(True, 7)] * 3
        assert asked == 1

    asyncio.run(asyncio.wait_for(story(), 10))


def test_models_beyond_the_bound_are_one_label(new_settings: Callable[..., Settings]) -> None:
    # Given more models than become labels
    settings = new_settings()
    Blobs(settings.volume_dir).prepare()
    database = Database(settings.database_url)
    versions = tuple(ModelVersion(f"Model {number:03}") for number in range(MOST_MODELS + 7))
    database.run(catalogue.store_family, ModelFamily("Many", versions=versions))
    database.close()
    # When two processes are scraped
    pages = [shown(settings.database_url, settings.redis_url, settings.volume_dir) for _ in range(2)]
    # Then both give the same models a label, and the others one together
    labels = [
        {
            sample.labels["model"]
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if "model" in sample.labels
        }
        for page in pages
    ]
    assert labels[0] == labels[1]
    assert labels[0] == {*(version.model_id for version in versions[:MOST_MODELS]), OTHER_MODELS}
    assert "segint_database_up 1.0" in pages[0]


def test_the_janitor_counts_what_it_does(own_deployment: MakeDeployment) -> None:
    # Given a job whose worker falls silent, and whose doorbell is lost
    settings = {"attempt_limit": 2, "retry_delay_seconds": 0, "lease_seconds": 3, "heartbeat_seconds": 1}
    deployment = own_deployment(**settings).import_sample().start_api()
    job_id = deployment.submit()
    doorbell = Doorbell(deployment.settings.redis_url, deployment.settings.redis_namespace)
    database = deployment.database()

    def counted(series: str) -> float:
        lines = [line for line in deployment.get("/metrics").text.splitlines() if line.startswith(f"{series} ")]
        return float(lines[0].split()[-1]) if lines else -1

    def reaches(series: str, least: float) -> None:
        wait_for(lambda: counted(series) >= least, f"{series} {least:g}")

    wait_for(doorbell.waiting, "its doorbell, which rings beside the answer")
    doorbell.take()
    doorbell.close()
    reaches("segint_janitor_doorbells_rung_total", 1)
    failures = f'segint_job_failures_total{{code="internal",model="{SAMPLE_MODEL}"}}'
    assert counted(failures) == 0
    # When it is taken back, and again, which was its last attempt
    for outcome in ("queued", "failed"):
        claim = wait_for(lambda: database.run(claims.claim, worker="w", lease_seconds=0.1), "a claim")
        assert claim is not None
        reaches(f'segint_leases_expired_total{{outcome="{outcome}"}}', 1)
    # Then each is counted once, and the failure as the model's
    assert counted('segint_leases_expired_total{outcome="queued"}') == 1
    assert counted(failures) == 1
    # When the job is past its retention
    past = update(SegmentationJobRow).where(SegmentationJobRow.id == job_id)
    database.run(lambda session: session.execute(past.values(expires_at=func.now())))
    database.close()
    # Then so is that, with its file
    reaches("segint_janitor_jobs_expired_total", 1)
    reaches('segint_janitor_files_deleted_total{kind="input"}', 1)
    reaches('segint_janitor_rounds_total{loop="volume"}', 1)
    assert counted("segint_janitor_file_faults_total") == 0
