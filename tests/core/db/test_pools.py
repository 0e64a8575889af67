"""Pools of workers: each claims what it runs, and leaves the rest to others."""

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import delete

from services.core.catalogue import Attachment, ModelFamily, ModelVersion
from services.core.db import catalogue, claims, jobs, model_checks, workers
from services.core.db.session import Database
from services.core.db.tables import ModelCheckRow, WorkerRow
from services.core.pools import Pool, PoolDevice
from tests.core.db.job_rows import Jobs, new_job

BIG, SMALL, FOREST = "Big é", "Small", "Forest"


@pytest.fixture
def waiting(jobs_at_hand: Jobs) -> Database:
    """A job of each of three models: one wants a GPU, one takes what there is, one is of another library."""
    versions = tuple(ModelVersion(model_id) for model_id in (BIG, SMALL, FOREST))
    database = jobs_at_hand.database
    database.run(catalogue.store_family, ModelFamily("Pooled", versions=versions))
    gpu = {"inference": {"device": "cuda:1"}}
    attach(database, BIG, "pytorch", gpu)
    attach(database, SMALL, "pytorch", {})
    attach(database, FOREST, "sklearn", {"inference": {"device": "cpu"}})
    for model_id in (BIG, SMALL, FOREST):
        database.run(jobs.accept, new_job(uuid4(), model_id=model_id))
    return database


def attach(database: Database, model_id: str, runtime: str, options: dict[str, Any]) -> None:
    database.run(catalogue.attach, model_id, Attachment(runtime, options=options))


def claimed(database: Database, pool: Pool) -> list[str]:
    """The models of all jobs that the pool claims."""
    models = []
    while claim := database.run(claims.claim, worker="w", lease_seconds=600, pool=pool):
        models.append(claim.model_id)
    return sorted(models)


@pytest.mark.parametrize(
    ("pool", "runs"),
    [
        (Pool(), [BIG, FOREST, SMALL]),
        (Pool(models=(BIG, "unknown")), [BIG]),
        (Pool(except_models=(BIG,)), [FOREST, SMALL]),
        (Pool(runtimes=("pytorch", "onnx")), [BIG, SMALL]),
        (Pool(device=PoolDevice.CPU), [FOREST, SMALL]),
        (Pool(device=PoolDevice.CUDA), [BIG, FOREST, SMALL]),
        (Pool(device=PoolDevice.CPU, runtimes=("sklearn",), except_models=(SMALL,)), [FOREST]),
    ],
    ids=["any", "only", "except", "runtimes", "cpu", "cuda", "all at once"],
)
def test_a_pool_claims_what_it_runs(waiting: Database, pool: Pool, runs: list[str]) -> None:
    assert claimed(waiting, pool) == runs
    # And the others' jobs are there still
    assert claimed(waiting, Pool()) == sorted({BIG, SMALL, FOREST} - set(runs))


def test_a_job_of_a_model_without_a_runtime_is_not_left_to_nobody(waiting: Database) -> None:
    """It is to fail with a sentence at whoever claims it, not to wait for ever."""
    waiting.run(catalogue.store_family, ModelFamily("Bare", versions=(ModelVersion("bare"),)))
    waiting.run(jobs.accept, new_job(uuid4(), model_id="bare"))
    assert "bare" in claimed(waiting, Pool(runtimes=("onnx",), device=PoolDevice.CPU))


def test_dry_runs_are_left_to_other_pools_too(waiting: Database) -> None:
    for model_id in (BIG, SMALL):
        waiting.run(model_checks.ask, model_id, "fingerprint")
    small = Pool(device=PoolDevice.CPU)
    tried = [waiting.run(model_checks.claim, "w", 600.0, small) for _ in range(2)]
    assert [check.model_id if check else None for check in tried] == [SMALL, None]


def test_a_dry_run_of_a_library_that_no_worker_has_is_told_of_all_the_same(waiting: Database) -> None:
    waiting.run(lambda session: session.execute(delete(WorkerRow)))  # and what else other tests left there
    waiting.run(lambda session: session.execute(delete(ModelCheckRow)))
    # Given a worker whose settings promise every model, and which lacks a library
    settings_pool, installed = Pool("one"), Pool("one", runtimes=("pytorch",))
    waiting.run(workers.tell, "w", installed, [])
    waiting.run(model_checks.ask, FOREST, "fingerprint")
    # When another has it, Then it is left to that one; when none has, it fails here with what to install
    waiting.run(workers.tell, "other", Pool("two"), [])
    assert waiting.run(model_checks.claim, "w", 600.0, installed, settings_pool) is None
    waiting.run(workers.leave, "other")
    check = waiting.run(model_checks.claim, "w", 600.0, installed, settings_pool)
    assert check is not None
    assert check.model_id == FOREST
