"""What scales, by what, and who owns the number of pods."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from sqlalchemy import func, select, text

from services.core.db.pool_reach import within_reach
from services.core.db.session import Database, Session
from services.core.db.tables import ModelCheckRow, ModelFamilyRow, ModelVersionRow, SegmentationJobRow
from services.core.jobs import JobState, Priority
from services.core.settings import Settings
from tests.charts.rendering import LEAST, SHAPES, Document, render, shape
from tests.charts.test_settings import SECRETS

POOLS = ("large", "small", "auto")
"""Those of the shape «pools» that KEDA scales."""
VERSIONS = {
    "whole-body-7": ("pytorch", {}),
    "o'clock": ("onnx", {}),
    "spine-1": ("pytorch", {"inference": {"device": "auto"}}),
    "needs a GPU": ("pytorch", {"inference": {"device": "cuda:0"}}),
    "needs ONNX": ("onnx", {"inference": {"device": "cpu"}}),
    "nothing attached": (None, {}),
}
OPEN = (JobState.QUEUED, JobState.RUNNING)


@pytest.fixture(scope="module")
def database(new_database: Callable[[], str]) -> Iterator[Database]:
    """One job of every model and state, and dry runs."""
    database = Database(new_database())
    database.run(fill)
    yield database
    database.close()


def fill(session: Session) -> None:
    family = ModelFamilyRow(canonical_name="All")
    session.add(family)
    session.flush()
    for position, (model_id, (runtime, options)) in enumerate(VERSIONS.items()):
        session.add(
            ModelVersionRow(family_id=family.id, position=position, model_id=model_id, runtime=runtime, options=options)
        )
    session.flush()
    for model_id in VERSIONS:
        for state in JobState:
            session.add(
                SegmentationJobRow(
                    id=uuid4(),
                    model_id=model_id,
                    state=state.value,
                    priority=int(Priority.BATCH),
                    input_bytes=1,
                    voxel_count=1,
                )
            )
    for model_id, check in (("spine-1", "queued"), ("needs a GPU", "running"), ("spine-1", "passed")):
        session.add(ModelCheckRow(model_id=model_id, fingerprint="f", state=check))


@pytest.mark.parametrize("pool", POOLS)
def test_keda_counts_what_the_pools_workers_claim_and_run(
    pool: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its SQL, in PostgreSQL, beside the condition that the workers claim by."""
    # Given the statement of a pool, and the pool as its workers read it
    query = trigger_of(pool)["metadata"]["query"]
    for name, value in (SECRETS | shape("pools").one("ConfigMap", f"rel-worker-{pool}")["data"]).items():
        monkeypatch.setenv(name, value)
    reach = Settings().pool

    def claimable(session: Session) -> int:
        jobs = select(func.count()).where(
            SegmentationJobRow.state.in_(OPEN), within_reach(SegmentationJobRow.model_id, reach)
        )
        checks = select(func.count()).where(ModelCheckRow.state.in_(OPEN), within_reach(ModelCheckRow.model_id, reach))
        return int(session.scalar(jobs) or 0) + int(session.scalar(checks) or 0)

    # When both are counted
    counted = database.run(lambda session: session.scalar(text(query.replace(":", r"\:"))))
    # Then they agree, and neither is nothing
    assert counted == database.run(claimable)
    assert counted == {"large": 4, "small": 2 * 3 + 2, "auto": 2 * 5 + 1}[pool]


def trigger_of(pool: str) -> Document:
    (trigger,) = shape("pools").one("ScaledObject", f"rel-worker-{pool}")["spec"]["triggers"]
    assert trigger["type"] == "postgresql"
    return dict(trigger)


def test_keda_reads_the_address_from_the_secret() -> None:
    """No password in the ScaledObject, and the one that the services use."""
    found = shape("pools").one("TriggerAuthentication", trigger_of("large")["authenticationRef"]["name"])
    assert found["spec"]["secretTargetRef"] == [
        {"parameter": "connection", "name": "segint", "key": "application-url"},
    ]


def test_pools_go_down_to_nothing_and_up_to_what_there_is() -> None:
    small = shape("pools").one("ScaledObject", "rel-worker-small")["spec"]
    large = shape("pools").one("ScaledObject", "rel-worker-large")["spec"]
    assert (small["minReplicaCount"], small["maxReplicaCount"]) == (0, 2)
    assert (large["minReplicaCount"], large["maxReplicaCount"]) == (1, 1)
    assert small["scaleTargetRef"] == {"name": "rel-worker-small"}


@pytest.mark.parametrize("name", SHAPES)
def test_whoever_scales_owns_the_number_of_pods(name: str) -> None:
    """A number in the Deployment would undo what the autoscaler did, at every upgrade."""
    scaled = {
        one["spec"]["scaleTargetRef"]["name"] for one in shape(name).of_kind("HorizontalPodAutoscaler", "ScaledObject")
    }
    for one in shape(name).of_kind("Deployment"):
        assert ("replicas" in one["spec"]) is (one["metadata"]["name"] not in scaled)


def test_a_single_pod_has_no_disruption_budget() -> None:
    """It could never be met: whoever drains the node would wait for ever."""
    budgets = {one["metadata"]["name"] for one in shape("pools").of_kind("PodDisruptionBudget")}
    assert budgets == {"rel-api", "rel-worker-small", "rel-worker-auto", "rel-worker-cpu"}
    assert not shape("evaluation").of_kind("PodDisruptionBudget")
    assert not shape("gateway").of_kind("PodDisruptionBudget")


def test_the_hpa_aims_at_the_requested_processor_time() -> None:
    hpa = shape("pools").one("HorizontalPodAutoscaler", "rel-api")["spec"]
    assert hpa["scaleTargetRef"]["name"] == "rel-api"
    assert hpa["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 70}
    assert not render(LEAST).of_kind("HorizontalPodAutoscaler", "ScaledObject", "TriggerAuthentication")
