"""Which volume a database belongs to, also when several processes meet it first."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.core.blobs import IDENTITY_FILE, Blobs
from services.core.db import volume_identity
from services.core.db.session import Database
from services.core.errors import StorageAway


@pytest.fixture
def database(new_database: Callable[[], str]) -> Iterator[Database]:
    made = Database(new_database(), pool_size=8)
    yield made
    made.close()


def test_the_first_volume_is_the_databases_own_from_then_on(database: Database, tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "volume")
    assert database.run(volume_identity.known_identity) is None
    identity = database.run(volume_identity.settle_identity, blobs.mark)
    assert (tmp_path / "volume" / IDENTITY_FILE).read_text().strip() == identity
    assert database.run(volume_identity.known_identity) == identity
    blobs.require(identity)
    # Another one does not become it.
    other = Blobs(tmp_path / "other")
    assert database.run(volume_identity.settle_identity, other.mark) == identity
    assert not (tmp_path / "other").exists()
    with pytest.raises(StorageAway, match=rf"{IDENTITY_FILE} is missing.*write {identity} into"):
        other.require(identity)
    other.mark()
    with pytest.raises(StorageAway, match=f"{IDENTITY_FILE} says"):
        other.require(identity)


def test_a_volume_that_was_marked_keeps_its_mark(database: Database, tmp_path: Path) -> None:
    """As when the process ended between marking and committing, or the database is a new one."""
    mark = Blobs(tmp_path).mark()
    assert database.run(volume_identity.settle_identity, Blobs(tmp_path).mark) == mark


def test_processes_that_start_at_once_agree(database: Database, tmp_path: Path) -> None:
    barrier = threading.Barrier(6)

    def start(_: int) -> str:
        barrier.wait(20)
        return database.run(volume_identity.settle_identity, Blobs(tmp_path).mark)

    with ThreadPoolExecutor(6) as executor:
        [identity] = set(executor.map(start, range(6)))
    Blobs(tmp_path).require(identity)


def test_a_mount_that_cannot_be_read_is_away(tmp_path: Path) -> None:
    (tmp_path / IDENTITY_FILE).mkdir()
    with pytest.raises(StorageAway, match="cannot be read"):
        Blobs(tmp_path).require("x")
