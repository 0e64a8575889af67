"""What a worker tells Prometheus, also while it works, and also beside another one on the same port."""

from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import MakeDeployment
from tests.deployment import SAMPLE_MODEL, Deployment, http, wait_for
from tests.end_to_end.test_bad_voxels import DAMAGED, body_with
from tests.ports import free_port
from tests.slow_model import SLOW_MODEL, Gate, sleeping, wait_until_running, with_slow_model


class Metrics:
    """Read anew each time."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/metrics"

    def value(self, name: str, **labels: str) -> float:
        """Of the default pool; 0 where there is none yet."""
        labels["pool"] = "default"
        text = http.get(self._url, timeout=10).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        )

    def answers(self) -> bool:
        try:
            return http.get(self._url).status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def deployment(own_deployment: MakeDeployment, tmp_path_factory: pytest.TempPathFactory, port: int) -> Deployment:
    deployment = with_slow_model(own_deployment(worker_metrics_port=port), tmp_path_factory.mktemp("slow"))
    return deployment.import_sample().start_api().start_worker()


def test_models_stages_and_jobs_are_counted_while_a_model_runs(deployment: Deployment, port: int) -> None:
    metrics = Metrics(port)
    # Given jobs of two models, one of which fails
    for body, model in ((None, SAMPLE_MODEL), (None, SAMPLE_MODEL), (sleeping(0), SLOW_MODEL)):
        assert deployment.finished(deployment.submit(body, model), model).percent == 100
    assert deployment.finished(deployment.submit(body_with(bytes(DAMAGED)))).error_text
    with Gate(deployment) as gate:
        # When the worker is asked while another runs
        job_id = deployment.submit(gate.request, SLOW_MODEL)
        wait_until_running(deployment, job_id)
        # Then it tells what there was
        assert metrics.value("segint_model_loads_total", model=SAMPLE_MODEL) == 1
        assert metrics.value("segint_model_hits_total", model=SAMPLE_MODEL) == 1
        assert metrics.value("segint_model_loads_total", model=SLOW_MODEL) == 1
        assert metrics.value("segint_model_load_seconds_count", model=SLOW_MODEL) == 1
        assert metrics.value("segint_model_load_seconds_sum", model=SLOW_MODEL) > 0
        assert metrics.value("segint_warm_models") == 2
        assert metrics.value("segint_warm_model_memory_bytes", model=SLOW_MODEL, memory="host") > 50 * 1024**2
        assert metrics.value("segint_warm_model_memory_bytes", model=SLOW_MODEL, memory="device") == 0
        for stage in ("queued", "decode", "wait", "load", "model", "encode"):
            assert metrics.value("segint_stage_seconds_count", model=SAMPLE_MODEL, stage=stage) == 2
        for stage in ("transfer", "preprocess", "forward", "cleanup"):
            assert metrics.value("segint_model_stage_seconds_count", model=SLOW_MODEL, stage=stage) == 1
        assert metrics.value("segint_worker_jobs_in_hand") == 1
        assert metrics.value("segint_attempts_total", model=SAMPLE_MODEL) == 3
        assert metrics.value("segint_attempts_total", model=SLOW_MODEL) == 2
        assert metrics.value("segint_worker_jobs_total", model=SAMPLE_MODEL, outcome="succeeded") == 2
        assert metrics.value("segint_worker_jobs_total", model=SAMPLE_MODEL, outcome="failed") == 1
    wait_for(
        lambda: metrics.value("segint_worker_jobs_total", model=SLOW_MODEL, outcome="succeeded") == 2,
        "the last one to be counted",
    )


def test_a_model_that_makes_room_for_another_is_counted(
    own_deployment: MakeDeployment, tmp_path: Path, port: int
) -> None:
    # Given a worker that keeps one model loaded, and has one
    deployment = with_slow_model(own_deployment(worker_metrics_port=port, warm_models=1), tmp_path)
    deployment.import_sample().start_api().start_worker()
    metrics = Metrics(port)
    assert deployment.finished(deployment.submit()).percent == 100
    assert metrics.value("segint_warm_models") == 1
    assert metrics.value("segint_model_evictions_total", model=SAMPLE_MODEL) == 0
    # When a job of another model comes
    assert deployment.finished(deployment.submit(sleeping(0), SLOW_MODEL), SLOW_MODEL).percent == 100
    # Then the first one has gone, and the other stays
    assert metrics.value("segint_model_evictions_total", model=SAMPLE_MODEL) == 1
    assert metrics.value("segint_model_evictions_total", model=SLOW_MODEL) == 0
    assert metrics.value("segint_warm_models") == 1


def test_a_second_worker_on_the_same_port_works_without(deployment: Deployment, port: int) -> None:
    wait_for(Metrics(port).answers, "the first one's port")
    deployment.start_worker("second", until_ready=True)
    wait_for(lambda: "no metrics" in deployment.log_of("second").read_text(), "the second one to say so")
    deployment.stop("worker")
    assert deployment.finished(deployment.submit()).percent == 100


def test_no_port_is_opened_unless_one_is_asked_for(own_deployment: MakeDeployment) -> None:
    deployment = own_deployment().import_sample().start_api().start_worker()
    assert deployment.finished(deployment.submit()).percent == 100
    first = psutil.Process(deployment.processes["worker"].pid)
    for process in [first, *first.children(recursive=True)]:
        assert [line for line in process.net_connections() if line.status == psutil.CONN_LISTEN] == []
