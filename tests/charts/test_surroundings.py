"""What is around the services: policies, ingress, monitoring, volume, evaluation databases, and what NOTES say."""

import json
from typing import Any

import helm_python
import pytest
import yaml

from tests.charts.rendering import CHART, LEAST, SHAPES, Document, Rendered, pods, render, shape, values_of
from tests.charts.test_names import selects

DNS, POSTGRES, REDIS, API = 53, 5432, 6379, 8080


def policy(rendered: Rendered, component: str) -> Document:
    return dict(rendered.one("NetworkPolicy", f"rel-{component}")["spec"])


def ports(rules: list[Document]) -> set[int]:
    return {port["port"] for rule in rules for port in rule["ports"]}


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "gateway"])
def test_every_pod_is_under_a_policy_that_lets_out_only_what_it_needs(name: str) -> None:
    rendered = shape(name)
    assert ports(policy(rendered, "worker")["egress"]) == {DNS, POSTGRES, REDIS}
    assert ports(policy(rendered, "api")["egress"]) == {DNS, POSTGRES, REDIS}
    assert ports(policy(rendered, "test")["egress"]) == {DNS, API}
    hooked = "helm.sh/hook" in rendered.of_kind("Job")[0]["metadata"].get("annotations", {})
    if not hooked:
        assert ports(policy(rendered, "migrate")["egress"]) == {DNS, POSTGRES}
    for one in rendered.of_kind("NetworkPolicy"):
        assert one["spec"]["policyTypes"] == ["Ingress", "Egress"], "what is not named is not limited"
    # Every pod of the release has one, but for a migration that runs before there are any
    for workload in rendered.of_kind("Deployment", "StatefulSet", "Job", "Pod"):
        if workload["kind"] == "Job" and hooked:
            continue
        labels = workload["metadata"]["labels"]
        assert any(selects(one["spec"]["podSelector"], labels) for one in rendered.of_kind("NetworkPolicy")), labels


def test_workers_are_asked_for_metrics_and_nothing_else() -> None:
    worker = policy(shape("minimal"), "worker")
    assert ports(worker["ingress"]) == {9191}
    closed = policy(render({**LEAST, "networkPolicy": {"scrapeFrom": []}}), "worker")
    assert "ingress" not in closed


def test_addresses_of_databases_narrow_the_policies() -> None:
    egress = policy(shape("pools"), "worker")["egress"]
    (database,) = (rule for rule in egress if ports([rule]) == {POSTGRES})
    assert database["to"] == [{"ipBlock": {"cidr": "203.0.113.7/32"}}]
    (redis,) = (rule for rule in egress if ports([rule]) == {REDIS})
    assert redis["to"] == [{"ipBlock": {"cidr": "203.0.113.8/32"}}]


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({}, "until networkPolicy.databaseTo and networkPolicy.redisTo say where"),
        ({"postgresql": {"enabled": True}}, "until networkPolicy.redisTo says where"),
        ({"networkPolicy": {"enabled": False}}, None),
        (values_of("pools"), None),
        (values_of("evaluation"), None),
    ],
)
def test_notes_say_which_way_out_is_still_wide(values: dict[str, Any], missing: str | None) -> None:
    notes = render({**LEAST, **values}).notes
    assert missing in notes if missing else "may reach any address" not in notes


def test_the_api_lets_in_the_ingress_the_test_and_prometheus_where_it_is_narrowed() -> None:
    (rule,) = policy(shape("pools"), "api")["ingress"]
    assert len(rule["from"]) == 3
    (everybody,) = policy(shape("minimal"), "api")["ingress"]
    assert "from" not in everybody


PROXY = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
TRUSTING = {"trustedProxies": ["10.42.0.0/16"], "trustedNetworks": ["192.0.2.0/24"]}


@pytest.mark.parametrize(
    ("settings", "policy", "warned"),
    [
        (TRUSTING, {}, True),
        (TRUSTING, {"apiFrom": [PROXY]}, True),  # metrics may be read from everywhere, on the same port
        (TRUSTING, {"apiFrom": [PROXY, {"namespaceSelector": {}}], "scrapeFrom": []}, True),
        (TRUSTING, {"apiFrom": [PROXY], "scrapeFrom": [], "enabled": False}, True),
        (TRUSTING, {"apiFrom": [PROXY], "scrapeFrom": []}, False),
        (TRUSTING, {"apiFrom": [PROXY], "scrapeFrom": [{"podSelector": {"matchLabels": {"app": "p"}}}]}, False),
        ({**TRUSTING, "trustedNetworks": []}, {}, False),
        ({**TRUSTING, "trustedProxies": []}, {}, False),
    ],
)
def test_notes_warn_where_any_pod_could_claim_a_trusted_address(
    settings: dict[str, Any], policy: dict[str, Any], warned: bool
) -> None:
    notes = render({**LEAST, "settings": settings, "networkPolicy": policy}).notes
    assert ("may claim an address of settings.trustedNetworks" in notes) is warned


@pytest.mark.parametrize("name", [name for name in SHAPES if values_of(name).get("settings", {}).get("trustedProxies")])
def test_where_proxies_are_trusted_nobody_else_reaches_the_api(name: str) -> None:
    assert "may claim an address" not in shape(name).notes
    (rule,) = policy(shape(name), "api")["ingress"]
    assert rule["from"]
    assert {"namespaceSelector": {}} not in rule["from"]


def test_evaluation_databases_let_in_their_own_release_only() -> None:
    rendered = shape("evaluation")
    for component, port in (("postgres", POSTGRES), ("redis", REDIS)):
        found = policy(rendered, component)
        assert "egress" not in found
        (rule,) = found["ingress"]
        assert ports([rule]) == {port}
        own = [peer["podSelector"]["matchLabels"] for peer in rule["from"] if "podSelector" in peer]
        assert all(labels["app.kubernetes.io/instance"] == "rel" for labels in own)
        assert {"api", "worker-cpu"} <= {labels["app.kubernetes.io/component"] for labels in own}
    # And the services' way to them is to them only
    for rule in policy(rendered, "worker")["egress"]:
        assert "to" in rule


def test_the_evaluation_postgresql_has_an_owner_whom_only_the_migrations_know() -> None:
    # Given the owner of the server
    rendered = shape("evaluation")
    postgres, job = (
        rendered.of_kind(kind)[at]["spec"]["template"]["spec"]["containers"][0]
        for kind, at in (("StatefulSet", 0), ("Job", 0))
    )
    server, migration = ({one["name"]: one for one in container["env"]} for container in (postgres, job))
    owner, database = server["POSTGRES_USER"]["value"], server["POSTGRES_DB"]["value"]
    # Then the migrations come as that one, with its password, and bind the role of databaseUrl
    url = f"postgresql://{owner}@rel-postgres:5432/{database}"
    assert migration["SEGINT_MIGRATION_DATABASE_URL"]["value"] == url
    assert migration["PGPASSWORD"]["valueFrom"] == server["POSTGRES_PASSWORD"]["valueFrom"]
    assert migration["SEGINT_DATABASE_URL"]["valueFrom"]["secretKeyRef"]["key"] == "SEGINT_DATABASE_URL"
    # and nobody else is told
    for name, pod in pods(rendered):
        if not name.startswith(("Job/", "StatefulSet/")):
            assert "POSTGRES_PASSWORD" not in str(pod), name
            assert owner not in str(pod), name


def test_no_secret_is_made_and_no_password_is_written() -> None:
    for name in SHAPES:
        assert not shape(name).of_kind("Secret")
        assert "password@" not in yaml.dump(list(shape(name).documents))


def test_nginx_lets_large_bodies_through_for_as_long_as_the_service_does() -> None:
    (ingress,) = shape("pools").of_kind("Ingress")
    annotations = ingress["metadata"]["annotations"]
    prefix = "nginx.ingress.kubernetes.io/"
    assert annotations[f"{prefix}proxy-body-size"] == "0"
    assert annotations[f"{prefix}proxy-request-buffering"] == "off"
    assert annotations[f"{prefix}proxy-read-timeout"] == "900"
    assert annotations["cert-manager.io/cluster-issuer"] == "internal"
    assert ingress["spec"]["tls"] == [{"hosts": ["segint.example.org"], "secretName": "rel-tls"}]


def test_annotations_of_ones_own_go_before_a_presets() -> None:
    values: dict[str, Any] = {**values_of("pools")}
    own = {"nginx.ingress.kubernetes.io/proxy-body-size": "2g"}
    values["ingress"] = {**values["ingress"], "annotations": own}
    (ingress,) = render(values).of_kind("Ingress")
    assert own.items() <= ingress["metadata"]["annotations"].items()


def test_traefik_is_told_what_annotations_cannot_say() -> None:
    assert "respondingTimeouts.readTimeout=900s" in shape("single-gpu").notes
    (ingress,) = shape("single-gpu").of_kind("Ingress")
    assert ingress["spec"]["tls"][0]["secretName"] == "segint-certificate"


def test_a_route_waits_for_the_longest_upload() -> None:
    (route,) = shape("gateway").of_kind("HTTPRoute")
    (rule,) = route["spec"]["rules"]
    assert rule["timeouts"] == {"request": "900s", "backendRequest": "900s"}
    assert rule["backendRefs"] == [{"name": "rel-api", "port": 8080}]
    data = shape("gateway").one("ConfigMap", "rel-api")["data"]
    assert data["SEGINT_PUBLIC_URL"] == "https://segint.example.org/"


def test_the_claim_is_kept_and_shared() -> None:
    claim = shape("minimal").one("PersistentVolumeClaim", "rel-volume")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    by_hand = shape("pools").one("PersistentVolumeClaim", "rel-volume")["spec"]
    assert (by_hand["storageClassName"], by_hand["volumeName"]) == ("", "segint-nfs")
    assert not shape("gateway").of_kind("PersistentVolumeClaim")


def test_nothing_is_of_the_whole_cluster_and_nothing_is_on_the_nodes() -> None:
    kinds = {one["kind"] for name in SHAPES for one in shape(name).documents}
    assert not {kind for kind in kinds if kind.startswith("Cluster") or kind in {"Role", "RoleBinding", "Namespace"}}


def test_prometheus_finds_the_ports_that_are_there() -> None:
    rendered = shape("pools")
    (service_monitor,) = rendered.of_kind("ServiceMonitor")
    service = rendered.one("Service", "rel-api")
    assert service_monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert service_monitor["metadata"]["labels"]["release"] == "prometheus"
    (pod_monitor,) = rendered.of_kind("PodMonitor")
    (worker,) = rendered.one("Deployment", "rel-worker-small")["spec"]["template"]["spec"]["containers"]
    (endpoint,) = pod_monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == worker["ports"][0]["name"]
    # and who reads an alert reads which node and pod
    set_by = {rule["targetLabel"]: rule["sourceLabels"] for rule in endpoint["relabelings"]}
    assert set_by == {"node": ["__meta_kubernetes_pod_node_name"], "instance": ["__meta_kubernetes_pod_name"]}


def test_a_label_of_ones_own_goes_before_the_charts() -> None:
    """By whatever Prometheus selects its monitors, without a key that is there twice."""
    own = {"app.kubernetes.io/instance": "prometheus", "release": "yes"}
    monitoring = {"serviceMonitor": {"enabled": True, "labels": own}}
    (monitor,) = render({**LEAST, "monitoring": monitoring}).of_kind("ServiceMonitor")
    assert own.items() <= monitor["metadata"]["labels"].items()
    # And the API, which it selects, has its own
    assert monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"] == "rel"


def test_alerts_and_dashboard_are_those_of_the_files() -> None:
    rendered = shape("pools")
    (rule,) = rendered.of_kind("PrometheusRule")
    assert rule["spec"] == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))
    data = rendered.one("ConfigMap", "rel-dashboard")["data"]
    ours = json.loads((CHART / "files" / "dashboards" / "segint.json").read_text(encoding="utf-8"))
    assert json.loads(data["research-rel.json"]) == ours


def test_alerts_link_to_their_pages_where_those_are_served() -> None:
    rules = {"enabled": True, "runbooksUrl": "https://git.example/docs/runbooks/"}
    (rule,) = render({**LEAST, "monitoring": {"prometheusRule": rules}}).of_kind("PrometheusRule")
    for group in rule["spec"]["groups"]:
        for one in group["rules"]:
            assert one["annotations"]["runbook_url"] == f"https://git.example/docs/runbooks/{one['alert']}.md"


def test_an_alert_of_ones_own_takes_the_place_of_one_that_is_left_out() -> None:
    def alerts(*disabled: str) -> list[str]:
        values = {**LEAST, "monitoring": {"prometheusRule": {"enabled": True, "disabled": list(disabled)}}}
        (rule,) = render(values).of_kind("PrometheusRule")
        return [one["alert"] for group in rule["spec"]["groups"] for one in group["rules"]]

    everything = alerts()
    assert alerts("SegIntOldestJobTooOld") == [name for name in everything if name != "SegIntOldestJobTooOld"]
    # and a misspelt name does not leave the alert in unnoticed
    with pytest.raises(helm_python.HelmRenderError, match="names SegIntOldestJob, but there is no such alert; there"):
        alerts("SegIntOldestJob")


@pytest.mark.parametrize("name", SHAPES)
def test_notes_say_what_comes_next_and_what_this_is_not_for(name: str) -> None:
    notes = shape(name).notes
    assert "For research, not for clinical use" in notes
    for step in ("1. ", "2. ", "3. "):
        assert f"\n{step}" in notes
    assert "rollout status deployment/rel-api" in notes
    assert "segint user create NAME --role admin" in notes
    assert ("helm test rel --namespace research" in notes) is bool(shape(name).of_kind("Pod"))
    assert ("for evaluation, not for production" in notes) is bool(shape(name).of_kind("StatefulSet"))


def test_notes_warn_of_what_will_be_missed_later() -> None:
    assert "needs a token. Velocity sends none" in shape("gateway").notes
    assert "whoever reaches the service may use it" in render({**LEAST, "settings": {"auth": "open"}}).notes
    assert "would wait for ever" in render({**LEAST, "workers": [{"name": "a", "models": ["m"]}]}).notes
    assert "would wait for ever" not in shape("pools").notes
    one_role = {"existingSecret": "segint", "keys": {"migrationDatabaseUrl": ""}}
    assert "changing or deleting entries of the audit" in render({"secrets": one_role}).notes
    for name in SHAPES:
        assert "entries of the audit" not in shape(name).notes
