"""A worker tells that it is there and what it has loaded; nobody waits for that, and who falls silent is not shown."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import select, update

from services.core.db import workers
from services.core.db.session import Database
from services.core.db.tables import WorkerRow
from services.core.db.workers import LivingWorkers, LoadedModel
from services.core.pools import Pool
from services.core.settings import Settings
from services.core.wire._pb import Model_pb2 as pb
from services.worker.presence import CLOSE_SECONDS, Presence
from tests.conftest import MakeDeployment
from tests.deployment import SAMPLE_FAMILY, SAMPLE_MODEL, Deployment, request_body, wait_for
from tests.faults.processes import kill_worker
from tests.ports import free_port

OTHER_MODEL = "Another Square"


@pytest.fixture
def database(new_settings: Callable[..., Settings]) -> Iterator[Database]:
    opened = Database(new_settings().database_url)
    yield opened
    opened.close()


def square(since_seconds: float = 60.0) -> LoadedModel:
    return LoadedModel("square", since_seconds, 5_000_000, 0)


def silent_for(database: Database, name: str, seconds: float) -> None:
    """As if that worker had said nothing since."""
    ago = timedelta(seconds=seconds)
    database.run(
        lambda session: session.execute(
            update(WorkerRow).where(WorkerRow.name == name).values(seen_at=WorkerRow.seen_at - ago)
        )
    )


def names(database: Database) -> list[str]:
    """Of every worker that is kept, silent or not."""
    return list(database.run(lambda session: session.scalars(select(WorkerRow.name).order_by(WorkerRow.name)).all()))


# --- In the database -----------------------------------------------------------------------------------------


def test_what_a_worker_has_loaded_is_what_it_said_last(database: Database) -> None:
    database.run(workers.tell, "b:1", Pool("gpu"), [square(), LoadedModel("big", 1.0, 7, 9)])
    database.run(workers.tell, "a:2", Pool("cpu"), [square()])
    database.run(workers.tell, "b:1", Pool("gpu"), [square(120.0)])
    found = database.run(workers.living)
    assert found.names == ("a:2", "b:1")
    assert [(model.model_id, model.worker, model.pool) for model in found.models] == [
        ("square", "a:2", "cpu"),
        ("square", "b:1", "gpu"),
    ]
    assert (datetime.now(UTC) - found.models[1].since).total_seconds() == pytest.approx(120, abs=30)
    database.run(workers.leave, "b:1")
    assert database.run(workers.living).names == ("a:2",)


def test_who_falls_silent_is_not_shown_and_in_the_end_forgotten(database: Database) -> None:
    for name in ("lives", "silent", "gone"):
        database.run(workers.tell, name, Pool(), [square()])
    silent_for(database, "silent", workers.SILENT_SECONDS + 1)
    silent_for(database, "gone", workers.FORGOTTEN_SECONDS + 1)
    assert database.run(workers.living).names == ("lives",)
    assert {model.worker for model in database.run(workers.living).models} == {"lives"}
    assert database.run(workers.forget_silent) == 1
    assert names(database) == ["lives", "silent"]


# --- At a worker ---------------------------------------------------------------------------------------------


def test_a_database_that_is_away_costs_nobody_anything(caplog: pytest.LogCaptureFixture) -> None:
    # Given a database that nobody reaches
    away = Database(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing", pool_size=1)
    presence = Presence(away, "w:1", Pool(), lambda: [square()], every_seconds=0.01)
    # When a worker begins, loads models and ends
    presence.start()
    wait_for(lambda: caplog.messages, "the first failure")
    began = time.monotonic()
    presence.notice()
    assert time.monotonic() - began < CLOSE_SECONDS
    presence.close()
    # Then it has not waited for it, and the log has one line of it
    assert time.monotonic() - began < 3 * CLOSE_SECONDS
    assert caplog.messages == ["worker not told of"]


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment) -> Deployment:
    made = new_deployment(warm_models=1).import_sample()
    database = made.database()
    database.run(workers.tell, "long gone", Pool(), [square()])
    silent_for(database, "long gone", workers.FORGOTTEN_SECONDS + 1)
    database.close()
    made.start_api()
    with made.library() as library:
        message = pb.ModelFamily.FromString(SAMPLE_FAMILY.read_bytes())
        message.CanonicalName = "Others"
        message.ModelVersions[0].ID = OTHER_MODEL
        library.import_family(message.SerializeToString())
        library.attach(OTHER_MODEL, runtime="phantom")
    return made


def living(deployment: Deployment) -> LivingWorkers:
    database = deployment.database()
    try:
        return database.run(workers.living)
    finally:
        database.close()


def loaded(deployment: Deployment) -> list[str]:
    return [model.model_id for model in living(deployment).models]


def only(deployment: Deployment, model: str) -> bool:
    return loaded(deployment) == [model]


def test_the_janitor_forgets_who_has_been_silent_for_long(deployment: Deployment) -> None:
    database = deployment.database()
    wait_for(lambda: "long gone" not in names(database), "the janitor to forget it")
    database.close()


def test_a_worker_is_there_with_the_models_that_it_has_loaded_until_it_ends(deployment: Deployment) -> None:
    # Given a worker that has done nothing yet
    deployment.start_worker("one")
    wait_for(lambda: living(deployment).names, "the worker to tell of itself")
    assert loaded(deployment) == []
    # When it runs one model, and then another, for which the first has to go
    for model in (SAMPLE_MODEL, OTHER_MODEL):
        job = deployment.submit(request_body(), model)
        assert deployment.finished(job, model).percent == 100
        # Then that one is shown, with the memory that it takes
        wait_for(partial(only, deployment, model), f"{model} to be the one that is loaded")
    (warm,) = living(deployment).models
    assert warm.host_bytes > 1_000_000
    assert warm.worker == deployment.row(job).worker
    # And when it is stopped, it is not there any more
    deployment.stop("one")
    assert living(deployment) == LivingWorkers((), ())


def test_a_worker_that_was_killed_is_shown_until_it_has_been_silent_for_long(deployment: Deployment) -> None:
    deployment.start_worker("two")
    (name,) = wait_for(lambda: living(deployment).names, "the worker to tell of itself")
    kill_worker(deployment, "two")
    assert living(deployment).names == (name,)
    database = deployment.database()
    silent_for(database, name, workers.SILENT_SECONDS + 1)
    database.close()
    assert living(deployment).names == ()
