"""The dashboard and the alerts as files, and what their queries ask for."""

import json
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "charts" / "segint" / "files" / "alerts.yaml"
DASHBOARD = ROOT / "charts" / "segint" / "files" / "dashboards" / "segint.json"
RUNBOOKS = ROOT / "docs" / "runbooks"
ALERT_TESTS = Path(__file__).parent / "alert_rules_test.yaml"

VARIABLES = {"$namespace": ".*", "$__rate_interval": "1m", "${datasource}": ""}
"""What Grafana puts in their place."""

TARGET_LABELS = frozenset({"namespace", "node", "pod", "instance"})
"""Of the scrape, not of the services; the chart's monitors set all of them."""


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return read


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dashboard()["panels"]
    return found


def panel_queries() -> list[tuple[str, str]]:
    """Title and expression, with the variables filled in."""
    return [(panel["title"], filled_in(target["expr"])) for panel in panels() for target in panel.get("targets", ())]


def all_queries() -> list[tuple[str, str]]:
    return [*panel_queries(), *((rule["alert"], rule["expr"]) for rule in alerts())]


def filled_in(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def selectors(expression: str) -> dict[str, set[str]]:
    """Series that an expression asks for, and the labels by which it does; raises ValueError where it is no PromQL."""
    found: dict[str, set[str]] = {}

    def note(node: promql.Expr) -> None:
        selector = node.vector_selector if isinstance(node, promql.MatrixSelector) else node
        if isinstance(selector, promql.VectorSelector):
            labels = found.setdefault(selector.name or "", set())
            labels.update(matcher.name for matcher in selector.matchers.matchers)

    promql.walk(promql.parse(expression), note)
    return found


def aggregations(expression: str) -> list[tuple[str, set[str], str]]:
    """Of each: what it does, the labels that it keeps, and what it is done to."""
    found: list[tuple[str, set[str], str]] = []

    def note(node: promql.Expr) -> None:
        if isinstance(node, promql.AggregateExpr):
            kept = set(node.modifier.labels) if node.modifier else set()
            found.append((str(node.op), kept, str(node.expr)))

    promql.walk(promql.parse(expression), note)
    return found
