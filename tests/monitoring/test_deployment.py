"""What a real deployment under a little load tells: documented, asked for by dashboard and alerts, and true."""

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.core.db import tokens
from services.worker.gpu_metrics import GpuMetrics
from tests.conftest import MakeDeployment
from tests.deployment import SAMPLE_MODEL, Deployment, http, request_body, wait_for
from tests.end_to_end.test_bad_voxels import DAMAGED, body_with
from tests.monitoring.exported import Exported, scraped
from tests.monitoring.files import ALERTS, ROOT, TARGET_LABELS, aggregations, alerts, all_queries, selectors
from tests.monitoring.prometheus import NEEDS_PROMETHEUS, Prometheus, watching
from tests.ports import free_port
from tests.worker.test_gpu_metrics import driver

JOBS = 6
POOL = "tests"
ROUTE = "/api/v2/Model/{model}/segmentation"
NOT_A_MODEL = "Nobody's model 8d0fb1"


@dataclass(frozen=True)
class Load:
    """What was done to a deployment of two API processes and one worker."""

    deployment: Deployment
    worker_port: int
    job_ids: tuple[str, ...]
    sent_bytes: int
    prometheus: Prometheus | None

    @property
    def pages(self) -> dict[str, str]:
        """By service, of one process each."""
        return {
            "API": scraped(f"{self.deployment.url}/metrics"),
            "worker": scraped(f"http://127.0.0.1:{self.worker_port}/metrics"),
        }


@pytest.fixture(scope="module")
def deployment_and_port(new_deployment: MakeDeployment) -> tuple[Deployment, int]:
    port = free_port()
    deployment = new_deployment(worker_metrics_port=port, pool_name=POOL).import_sample()
    return deployment.start_api().start_api("second").start_worker(until_ready=True), port


@pytest.fixture(scope="module")
def load(deployment_and_port: tuple[Deployment, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    """Jobs through both API processes at once, watched by a Prometheus where there is one."""
    deployment, port = deployment_and_port
    if NEEDS_PROMETHEUS.args[0]:
        yield _work(deployment, port, None)
        return
    targets = {
        "segint-api": [f"127.0.0.1:{deployment.ports[name]}" for name in ("api", "second")],
        "segint-worker": [f"127.0.0.1:{port}"],
    }
    with watching(targets, ALERTS, tmp_path_factory.mktemp("prometheus")) as prometheus:
        wait_for(lambda: prometheus.value("sum(up)") == 3, "every target to be scraped")
        yield _work(deployment, port, prometheus)


def _work(deployment: Deployment, port: int, prometheus: Prometheus | None) -> Load:
    body = request_body()
    job_ids: list[str] = []

    def client(api: str) -> None:
        for _ in range(JOBS // 2):
            job_id = deployment.at(api).submit(body)
            assert deployment.at(api).finished(job_id).percent == 100
            deployment.at(api).result(job_id)
            job_ids.append(str(job_id))

    clients = [threading.Thread(target=client, args=(api,)) for api in ("api", "second")]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert len(job_ids) == JOBS
    damaged = body_with(bytes(DAMAGED))
    failed = deployment.submit(damaged)
    assert deployment.finished(failed).error_text
    # What nobody should do: paths and models that are none
    assert deployment.post(f"/api/v2/Model/{NOT_A_MODEL}/segmentation", body).status_code == 400
    assert http.get(f"{deployment.url}/no/such/path").status_code == 404
    return Load(deployment, port, (*job_ids, str(failed)), JOBS * len(body) + len(damaged), prometheus)


@pytest.fixture
def prometheus(load: Load) -> Prometheus:
    if load.prometheus is None:
        pytest.skip("no prometheus here: `make test-servers` installs Debian's")
    return load.prometheus


@pytest.fixture
def exported(load: Load, monkeypatch: pytest.MonkeyPatch) -> dict[str, Exported]:
    """By service. GPUs, which no machine of the tests has, as a stand-in for their driver tells them."""
    monkeypatch.setitem(sys.modules, "pynvml", driver())
    gpus = CollectorRegistry()
    gpus.register(GpuMetrics(POOL))
    pages = load.pages
    pages["worker"] += generate_latest(gpus).decode()
    found = {service: Exported() for service in pages}
    for service, text in pages.items():
        found[service].add(text)
    return found


# --- Documented, and bounded ---------------------------------------------------------------------------------


def documented() -> dict[str, tuple[str, set[str], set[str]]]:
    """Type, labels and services of each metric in the table of docs/metrics.md."""
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    [table] = re.findall(r"<!-- metrics begin -->\n(.*?)\n<!-- metrics end -->", text, re.DOTALL)
    found = {}
    for line in table.splitlines()[2:]:
        name, kind, labels, services, _ = (cell.strip() for cell in line.strip("|").split("|"))
        split = [{part.strip() for part in cell.split(",") if part.strip()} for cell in (labels, services)]
        found[name.strip("`")] = (kind, split[0], split[1])
    return found


def test_the_documentation_lists_what_is_exported(exported: dict[str, Exported]) -> None:
    table = documented()
    for service, page in exported.items():
        listed = {name: kind for name, (kind, _, services) in table.items() if service in services}
        assert page.types == listed, service
    for name, (_, labels, services) in table.items():
        told: set[str] = set()
        for service in services:
            told |= exported[service].labels.get(name, labels)
        assert told == labels, name


def test_names_follow_the_conventions(exported: dict[str, Exported]) -> None:
    for page in exported.values():
        for name, kind in page.types.items():
            assert (kind == "counter") == name.endswith("_total"), name
            assert not re.search(r"_(ms|milliseconds|kb|mb|percent|minutes|hours)(_|$)", name), name
            if kind == "histogram":
                assert name.endswith("_seconds"), name


def test_nobody_and_no_job_becomes_a_label(load: Load) -> None:
    deployment = load.deployment
    database = deployment.database()
    _, secret = database.run(
        lambda session: tokens.create_token(session, name="ward-7", scopes=("segment",), actor="command")
    )
    database.close()
    deployment.with_token(secret).submit()
    for page in load.pages.values():
        for told in (*load.job_ids, NOT_A_MODEL, "no/such/path", "127.0.0.1", "ward-7", secret, "tests 1.0"):
            assert told not in page
    assert 'route="none",status="404"' in load.pages["API"]


# --- Dashboard and alerts --------------------------------------------------------------------------------------


def check_query(exported: dict[str, Exported], where: str, expression: str) -> None:
    """Fails where somebody asks for what nobody exports."""
    asked = selectors(expression)
    assert asked, where
    known: set[str] = set()
    for series, labels in asked.items():
        pages = [page for page in exported.values() if series in page.series]
        assert pages, f"«{where}» asks for {series}, which nobody exports"
        has: set[str] = set()
        for page in pages:
            told = page.labels_of_series(series)
            if told is None:  # no sample yet, as of a model that was never evicted
                told = documented()[re.sub(r"_(bucket|sum|count)$", "", series)][1] | {"le"}
            has |= told
        assert labels <= has | TARGET_LABELS, f"«{where}» asks {series} by {labels - has}"
        known |= has
    for _, kept, _ in aggregations(expression):
        assert kept <= known | TARGET_LABELS, f"«{where}» groups by {kept - known}"


def test_queries_ask_for_what_is_exported(exported: dict[str, Exported]) -> None:
    for where, expression in all_queries():
        check_query(exported, where, expression)


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ('sum(rate(segint_job_count{state="x"}[5m]))', "segint_job_count"),
        ('max(segint_jobs{patient="x"})', "patient"),
        ("sum by (client) (rate(segint_stage_seconds_sum[5m]))", "client"),
    ],
)
def test_what_nobody_exports_is_noticed(exported: dict[str, Exported], expression: str, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_query(exported, "a panel", expression)


@NEEDS_PROMETHEUS
def test_prometheus_answers_every_query(prometheus: Prometheus) -> None:
    for where, expression in all_queries():
        assert prometheus.asked("query", query=expression)["resultType"] == "vector", where


@NEEDS_PROMETHEUS
def test_no_alert_fires_on_a_deployment_that_works(prometheus: Prometheus) -> None:
    def evaluated() -> list[dict[str, str]]:
        [group] = prometheus.asked("rules")["groups"]
        rules: list[dict[str, str]] = group["rules"]
        return rules if all(rule["health"] != "unknown" for rule in rules) else []

    rules = wait_for(evaluated, "the rules to be evaluated")
    assert [rule["name"] for rule in rules] == [rule["alert"] for rule in alerts()]
    assert {rule["health"] for rule in rules} == {"ok"}
    assert [alert for alert in prometheus.asked("alerts")["alerts"] if alert["state"] == "firing"] == []


# --- What Prometheus then says -------------------------------------------------------------------------------


@NEEDS_PROMETHEUS
def test_what_was_done_is_what_prometheus_says(load: Load, prometheus: Prometheus) -> None:
    # Given the last scrape has seen everything
    succeeded = f'sum(segint_worker_jobs_total{{model="{SAMPLE_MODEL}",pool="{POOL}",outcome="succeeded"}})'
    wait_for(lambda: (prometheus.value(succeeded) or 0) >= JOBS, "the jobs to be scraped")
    accepted = f'sum(segint_http_requests_total{{method="POST",route="{ROUTE}",status="200"}})'
    wait_for(lambda: (prometheus.value(accepted) or 0) >= JOBS + 1, "the uploads to be scraped")
    expected = {
        # Then every target is up, and nothing is away
        "count(up == 1)": 3,
        "min(segint_database_up) + min(segint_redis_up) + min(segint_volume_up)": 3,
        'count(segint_build_info{service="api"})': 2,
        # and what both API processes did adds up
        f'sum(segint_job_failures_total{{model="{SAMPLE_MODEL}",code="internal"}})': 0,
        "sum(segint_job_failures_total)": 1,
        'sum(segint_http_requests_total{route="none",status="404"})': 1,
        # and stages were timed for each success
        f'count(count by (stage) (segint_stage_seconds_count{{model="{SAMPLE_MODEL}"}}))': 6,
        "sum(segint_model_loads_total)": 1,
        f'max(segint_workers{{pool="{POOL}"}})': 1,
    }

    said: dict[str, float | None] = {}

    def all_said() -> bool:
        said.update((expression, prometheus.value(expression)) for expression in expected)
        return said == expected

    with suppress(AssertionError):  # a scrape may come late, or fail once; what is not so in the end is shown below
        wait_for(all_said, "every figure")
    assert said == expected
    at_least = {
        f'sum(segint_http_received_bytes_total{{route="{ROUTE}"}})': load.sent_bytes,
        f'sum(segint_http_sent_bytes_total{{route="{ROUTE}/{{id}}/result"}})': 1,
        "min(segint_volume_free_bytes)": 1,
    }
    for expression, least in at_least.items():
        wait_for(partial(reaches, prometheus, expression, least), f"{expression} to be {least}")


def reaches(prometheus: Prometheus, expression: str, least: float) -> bool:
    return (prometheus.value(expression) or 0) >= least


@NEEDS_PROMETHEUS
def test_a_fact_is_told_by_each_api_process_and_counts_once(prometheus: Prometheus) -> None:
    """Why dashboard and alerts take the greatest over processes, as docs/metrics.md says."""
    failed = f'segint_jobs{{model="{SAMPLE_MODEL}",state="failed"}}'
    fact = f"sum(max by (namespace, model) ({failed}))"
    both = (f"min({failed})", f"sum({failed})", fact)
    wait_for(lambda: [prometheus.value(one) for one in both] == [1, 2, 1], "both to tell of one failed job")


def facts() -> set[str]:
    """Metrics that docs/metrics.md marks so."""
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `(\w+)` \|.*\| fact: [^|]*\|$", text, re.MULTILINE))


def sums_facts(expression: str) -> bool:
    """Whether facts are added up over processes: a sum that keeps them apart is right, and one of greatest values."""
    for what, kept, of in aggregations(expression):
        inner = {name for operation, _, deeper in aggregations(of) if operation != "sum" for name in selectors(deeper)}
        if what in {"sum", "count", "avg"} and "instance" not in kept and (selectors(of).keys() - inner) & facts():
            return True
    return False


def test_no_query_adds_up_facts_over_processes() -> None:
    assert {"segint_jobs", "segint_workers", "segint_volume_free_bytes"} <= facts()
    assert [where for where, expression in all_queries() if sums_facts(expression)] == []
    assert sums_facts('sum(segint_jobs{state="queued"})')
    assert sums_facts("max(sum by (namespace) (segint_jobs))")
    assert not sums_facts("max(sum by (instance) (segint_jobs))")
