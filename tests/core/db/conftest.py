"""A database of its own for each module of tests."""

from collections.abc import Callable, Iterator

import pytest

from services.core.db.session import Database
from tests.core.db.job_rows import Jobs


@pytest.fixture(scope="module")
def database(new_database: Callable[[], str]) -> Iterator[Database]:
    database = Database(new_database(), pool_size=10)
    yield database
    database.close()


@pytest.fixture
def jobs_at_hand(database: Database) -> Jobs:
    """No jobs yet, and a model that they may name."""
    at_hand = Jobs(database)
    at_hand.clear()
    return at_hand
