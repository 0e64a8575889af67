"""The dashboard, the alerts and their pages, as files."""

import re
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from services.core.db.workers import SILENT_SECONDS
from tests.monitoring.files import ALERT_TESTS, ALERTS, DASHBOARD, ROOT, RUNBOOKS, alerts, dashboard, panels
from tests.monitoring.prometheus import NEEDS_PROMETHEUS

COLUMNS = 24
"""Of Grafana's grid."""
WANTED_OF_TYPE = {
    "stat": {"colorMode", "graphMode", "reduceOptions", "textMode"},
    "timeseries": {"legend", "tooltip"},
    "bargauge": {"displayMode", "orientation", "reduceOptions"},
}
"""Options without which a panel of that type is shown otherwise than it is meant."""


# --- Alerts ----------------------------------------------------------------------------------------------------


def test_every_alert_says_what_it_is_and_what_to_do() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names)) >= 9
    for rule in alerts():
        assert re.fullmatch(r"SegInt[A-Za-z]+", rule["alert"])
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
        assert all(rule["annotations"].values())


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {rule["alert"] for rule in alerts()}
    for name in pages:
        text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
        assert text.startswith(f"# {name}\n")
        for section in ("## Look", "## Mend", "```\n"):
            assert section in text, f"{name}: {section}"


def test_every_alert_is_tested_both_ways() -> None:
    tests = yaml.safe_load(ALERT_TESTS.read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]}
    assert fires == silent == {rule["alert"] for rule in alerts()}


@NEEDS_PROMETHEUS
@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "--lint=all", "--lint-fatal", str(ALERTS)), ("test", "rules", str(ALERT_TESTS))],
    ids=["check", "test"],
)
def test_promtool_is_content(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@NEEDS_PROMETHEUS
def test_the_alert_that_metrics_md_puts_in_another_s_place_is_one(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    [values, own] = [
        yaml.safe_load(block) for block in re.findall(r"```yaml\n# (?:values|kubectl)[^\n]*\n(.+?)```", text, re.S)
    ]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own["spec"]), encoding="utf-8")
    done = subprocess.run(
        ["promtool", "check", "rules", tmp_path / "own.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    replaced = [rule["alert"] for group in own["spec"]["groups"] for rule in group["rules"]]
    assert replaced == values["monitoring"]["prometheusRule"]["disabled"]
    assert set(replaced) <= {rule["alert"] for rule in alerts()}


# --- What the pages tell to type ---------------------------------------------------------------------------------


def pages() -> list[tuple[str, str]]:
    return [(path.name, path.read_text(encoding="utf-8")) for path in sorted(RUNBOOKS.glob("*.md"))]


def test_the_statements_of_the_pages_fit_the_schema(new_database: Any) -> None:
    statements = [
        (name, statement.replace("MODEL", "a model"))
        for name, text in pages()
        for statement in re.findall(r'psql "\$SEGINT_DATABASE_URL" -c "([^"]+)"', text)
    ]
    assert len(statements) >= 4
    with psycopg.connect(new_database()) as connection:
        for _, statement in statements:
            connection.execute(statement.encode())


def test_the_pages_name_what_is_exported() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE)
    for name, text in pages():
        for metric in re.findall(r"`(segint_\w+)", text):
            assert any(known.startswith(metric) for known in listed), f"{name}: {metric}"
        for pattern in re.findall(r"grep -E '\^(segint_[^']+)'", text):
            parts = re.sub(r".*\(|\).*", "", pattern).split("|")
            prefix = pattern.split("(")[0]
            for part in parts:
                assert any(re.match(prefix + part, known) for known in listed), f"{name}: {prefix}{part}"


def test_the_pages_look_for_what_is_logged() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "services").rglob("*.py"))
    logs = "\n".join(re.findall(r"logger\.\w+\(\s*\"([^\"]+)\"", source))
    looked_for = [
        words
        for _, text in pages()
        for pattern in re.findall(r"kubectl [^\n]* logs [^\n]*grep (?:-E )?'([^']+)'", text)
        for words in pattern.split("|")
        if words != "MODEL"
    ]
    assert len(looked_for) >= 8
    assert [words for words in looked_for if words not in logs] == []
    assert "`worker not told of`" in "".join(text for _, text in pages())


def test_how_long_a_worker_is_believed_is_said_alike() -> None:
    for path in (ROOT / "docs" / "metrics.md", RUNBOOKS / "SegIntPoolWithoutWorkers.md", DASHBOARD):
        assert f"{SILENT_SECONDS} seconds" in path.read_text(encoding="utf-8"), path


def test_links_between_pages_lead_somewhere() -> None:
    for folder, text in [(RUNBOOKS, text) for _, text in pages()] + [
        (ROOT / "docs", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8"))
    ]:
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (folder / target).exists(), target


# --- The dashboard ---------------------------------------------------------------------------------------------


def test_panels_lie_beside_each_other() -> None:
    places = [panel["gridPos"] for panel in panels()]
    for place in places:
        assert set(place) == {"x", "y", "w", "h"}
        assert all(isinstance(value, int) and value >= 0 for value in place.values())
        assert place["w"] > 0
        assert place["h"] > 0
        assert place["x"] + place["w"] <= COLUMNS
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or apart, (one, other)


def test_panels_are_what_grafana_takes() -> None:
    read = dashboard()
    assert read["schemaVersion"] == 39
    assert read["uid"] == "segint"
    assert "not for clinical use" in read["description"]
    numbers = [panel["id"] for panel in panels()]
    assert len(numbers) == len(set(numbers))
    for panel in panels():
        if panel["type"] == "row":
            assert panel["panels"] == []  # those below it are its own, as long as it is not collapsed
            continue
        assert panel["title"]
        assert panel["description"]
        assert WANTED_OF_TYPE[panel["type"]] <= set(panel["options"])
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["fieldConfig"]["overrides"] == []
        references = [target["refId"] for target in panel["targets"]]
        assert references == [chr(ord("A") + index) for index in range(len(references))]
        for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [{"value": None}])[:1]:
            assert step["value"] is None  # the first step is everything below the second


def test_the_data_source_is_a_variable() -> None:
    [source, namespace] = dashboard()["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert (namespace["name"], namespace["type"], namespace["allValue"]) == ("namespace", "query", ".*")
    used = [namespace["datasource"]]
    for panel in panels():
        if panel["type"] != "row":
            used += [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
            assert all("$namespace" in target["expr"] for target in panel["targets"]), panel["title"]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in used)


def test_what_is_told_by_worker_names_the_node_and_where_there_is_none_the_instance() -> None:
    by_worker = [target for panel in panels() for target in panel.get("targets", ()) if "by (node" in target["expr"]]
    assert len(by_worker) >= 4
    for target in by_worker:
        assert "by (node, instance" in target["expr"]
        assert target["legendFormat"].startswith("{{node}} {{instance}}")
    assert not [target for panel in panels() for target in panel.get("targets", ()) if "by (instance" in target["expr"]]


@pytest.mark.parametrize("question", ["healthy", "wait", "slow", "full"])
def test_the_rows_answer_a_shift_lead_s_questions(question: str) -> None:
    assert any(question in panel["title"] for panel in panels() if panel["type"] == "row")
