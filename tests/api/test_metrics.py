"""GET /metrics while what it asks is away, and with a large catalogue."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request

from services.api.metrics import Metrics
from services.api.metrics_page import PATIENCE_SECONDS, MetricsPage
from services.core.blobs import Blobs
from services.core.catalogue import ModelFamily, ModelVersion
from services.core.db import catalogue
from services.core.db.session import AsyncDatabase, Database
from services.core.model_labels import MOST_MODELS, OTHER_MODELS
from services.core.queue import Doorbell
from services.core.settings import Settings


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
    assert time.monotonic() - began < 2 * PATIENCE_SECONDS + 3
    for what in ("database", "redis", "volume"):
        assert f"segint_{what}_up 0.0" in text
    for unknown in ("segint_jobs{", "segint_doorbells_waiting", "segint_volume_free_bytes", "segint_workers"):
        assert unknown not in text
    assert 'segint_build_info{service="api"' in text


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
