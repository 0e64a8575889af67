"""Dry runs in PostgreSQL: claimed once, given to somebody else when a worker falls silent, and given up in the end."""

from collections.abc import Callable, Iterator

import pytest

from services.core.catalogue import Attachment, ModelFamily, ModelVersion
from services.core.db import catalogue, model_checks
from services.core.db.session import Database
from services.core.model_check import CheckState, ModelCheck, fingerprint_of
from services.core.pools import Pool

EVERY_MODEL = Pool()
LONG, PAST = 600.0, -1.0
"""Leases, in seconds: one that lasts, and one that is over already."""


@pytest.fixture
def database(new_database: Callable[[], str]) -> Iterator[Database]:
    made = Database(new_database())
    made.run(catalogue.store_family, ModelFamily("F", versions=(ModelVersion("m"), ModelVersion("n"))))
    yield made
    made.close()


def claim(
    database: Database, worker: str = "w", lease_seconds: float = LONG, pool: Pool = EVERY_MODEL
) -> ModelCheck | None:
    return database.run(model_checks.claim, worker, lease_seconds, pool)


def newest(database: Database) -> ModelCheck:
    found = database.run(model_checks.newest, "m")
    assert found is not None
    return found


def test_what_was_asked_first_is_tried_first_and_by_one_worker(database: Database) -> None:
    # Given two dry runs that were asked for, one of them twice
    first = database.run(model_checks.ask, "m", "a")
    assert database.run(model_checks.ask, "m", "a").id == first.id
    second = database.run(model_checks.ask, "n", "a")
    assert database.run(model_checks.count_waiting) == 2
    # When two workers claim
    claimed = [claim(database, "one"), claim(database, "two"), claim(database, "three")]
    # Then each gets another one, and the third none
    assert [check.id if check else None for check in claimed] == [first.id, second.id, None]
    assert database.run(model_checks.count_waiting) == 0
    # And a verdict is kept with what it says
    check = claimed[0]
    assert check is not None
    database.run(model_checks.finish, check, {"run_seconds": 0.5})
    assert (newest(database).state, newest(database).report) == (CheckState.PASSED, {"run_seconds": 0.5})


def test_the_verdict_of_a_worker_that_was_given_up_does_not_count(database: Database) -> None:
    # Given a worker that fell silent, and another one that tries the model again
    database.run(model_checks.ask, "m", "a")
    silent = claim(database, "silent", PAST)
    again = claim(database, "other")
    assert silent is not None
    assert again is not None
    assert (again.attempt, again.worker) == (2, "other")
    # When the first one speaks after all
    database.run(model_checks.finish, silent, {}, "too late")
    # Then only the second one is heard
    assert newest(database).state is CheckState.RUNNING
    database.run(model_checks.finish, again, {}, "a NUL\x00 in it")
    assert newest(database).state is CheckState.FAILED
    assert "NUL" in newest(database).error_text


def test_a_model_that_takes_workers_with_it_is_given_up(database: Database) -> None:
    database.run(model_checks.ask, "m", "a")
    for _ in range(model_checks.MOST_ATTEMPTS):
        assert claim(database, lease_seconds=PAST) is not None
    assert claim(database) is None
    assert newest(database).state is CheckState.FAILED
    assert newest(database).error_text == model_checks.GAVE_UP
    assert database.run(model_checks.count_waiting) == 0


def test_anything_that_is_attached_otherwise_has_another_fingerprint() -> None:
    base = Attachment(runtime="pytorch", options={"call": "tensor"})
    others = [
        Attachment(runtime="onnx", options={"call": "tensor"}),
        Attachment(runtime="pytorch", options={"call": "array"}),
        Attachment(runtime="pytorch", options={"call": "tensor"}, class_name="C"),
        Attachment(runtime="pytorch", options={"call": "tensor"}, allow_pickle=True),
    ]
    assert len({fingerprint_of(base), *map(fingerprint_of, others)}) == 5
    assert fingerprint_of(base) == fingerprint_of(Attachment(runtime="pytorch", options={"call": "tensor"}))
