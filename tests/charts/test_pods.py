"""Every pod meets PodSecurity «restricted», says nothing twice, and ends in the right order."""

import re
from collections import Counter
from typing import Any

import pytest

from services.core.settings import Settings
from services.worker.__main__ import SHUTDOWN_MARGIN_SECONDS
from tests.charts.rendering import LEAST, SHAPES, Document, containers, pods, render, shape

PODS = tuple((name, title) for name in SHAPES for title, _ in pods(shape(name)))
ALLOWED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"} | {
    "secret"
}
VOLUME_DIR = "/var/lib/segint"
GIB = 1024**3


def pod(name: str, title: str) -> Document:
    return dict(pods(shape(name)))[title]


@pytest.mark.parametrize(("name", "title"), PODS)
def test_every_pod_meets_podsecurity_restricted(name: str, title: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, version latest."""
    assert restricted_faults(pod(name, title)) == []


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        ("pod", "hostNetwork", True),
        ("pod", "securityContext", {"runAsNonRoot": True}),
        ("pod", "volumes", [{"name": "host", "hostPath": {"path": "/"}}]),
        ("container", "securityContext", {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}),
        ("container", "ports", [{"containerPort": 1, "hostPort": 1}]),
    ],
)
def test_the_check_sees_what_is_not_restricted(where: str, key: str, value: Any) -> None:
    good = pod("minimal", "Deployment/rel-api")
    bad = good | {key: value} if where == "pod" else good | {"containers": [good["containers"][0] | {key: value}]}
    assert restricted_faults(bad)


@pytest.mark.parametrize(("name", "title"), PODS)
def test_every_pod_leaves_kubernetes_alone_and_writes_to_its_volumes_only(name: str, title: str) -> None:
    spec = pod(name, title)
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    for one in containers(spec):
        assert one["securityContext"]["readOnlyRootFilesystem"] is True
        assert one["resources"]["limits"]["memory"]
        assert one["resources"]["requests"]["cpu"]
        assert one["imagePullPolicy"]
        assert {mount["name"] for mount in one["volumeMounts"]} <= {volume["name"] for volume in spec["volumes"]} | {
            "data"  # of a StatefulSet's own claim
        }
        for volume in spec["volumes"]:
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"], "without a limit it may fill the node"


@pytest.mark.parametrize(("name", "title"), PODS)
def test_no_port_and_no_mount_is_there_twice(name: str, title: str) -> None:
    """Lists that Kubernetes merges by a key, which it refuses where that is there twice."""
    spec = pod(name, title)
    for one in containers(spec):
        for keys in (
            [port["containerPort"] for port in one.get("ports", [])],
            [port["name"] for port in one.get("ports", [])],
            [mount["mountPath"] for mount in one["volumeMounts"]],
        ):
            assert len(set(keys)) == len(keys)
    for named in (containers(spec), spec["volumes"]):
        assert len({one["name"] for one in named}) == len(named)


@pytest.mark.parametrize("name", SHAPES)
def test_service_accounts_exist_and_have_no_token(name: str) -> None:
    accounts = {one["metadata"]["name"]: one for one in shape(name).of_kind("ServiceAccount")}
    assert all(one["automountServiceAccountToken"] is False for one in accounts.values())
    hooked = shape(name).of_kind("Job")[0]["metadata"].get("annotations", {}).get("helm.sh/hook")
    for title, spec in pods(shape(name)):
        # A hook before the installation runs before the chart's own accounts are there.
        expected = {"default"} if hooked and title.startswith("Job/") else set(accounts)
        assert spec["serviceAccountName"] in expected


@pytest.mark.parametrize(("name", "title"), PODS)
def test_no_variable_is_there_twice(name: str, title: str) -> None:
    """Server-side apply refuses a list of variables with one name twice; a second source hides the first."""
    for one in containers(pod(name, title)):
        assert [variable for variable, times in variables_of(name, one).items() if times > 1] == []


def test_the_count_sees_a_variable_that_is_there_twice() -> None:
    one = dict(containers(pod("minimal", "Deployment/rel-api"))[-1])
    one["env"] = [*one["env"], {"name": "SEGINT_LOG_LEVEL", "value": "DEBUG"}]
    assert variables_of("minimal", one)["SEGINT_LOG_LEVEL"] == 2


@pytest.mark.parametrize("name", SHAPES)
def test_a_worker_ends_in_order(name: str) -> None:
    """The longest run of a model < the drain limit < the shutdown time-out < the pod's grace period."""
    for deployment in workers(name):
        data = shape(name).one("ConfigMap", deployment["metadata"]["name"])["data"]
        spec = deployment["spec"]["template"]["spec"]
        run, drain = int(data["SEGINT_MODEL_TIME_LIMIT_SECONDS"]), int(data["SEGINT_DRAIN_SECONDS"])
        grace = spec["terminationGracePeriodSeconds"]
        assert run < drain < drain + SHUTDOWN_MARGIN_SECONDS < grace
        assert deployment["spec"]["progressDeadlineSeconds"] > grace
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_the_times_follow_from_one_value_and_a_pools_own() -> None:
    large = shape("pools").one("Deployment", "rel-worker-large")["spec"]["template"]["spec"]
    small = shape("pools").one("Deployment", "rel-worker-small")["spec"]["template"]["spec"]
    assert large["terminationGracePeriodSeconds"] - small["terminationGracePeriodSeconds"] == 3600 - 1800


@pytest.mark.parametrize("name", SHAPES)
def test_an_api_pod_ends_after_the_longest_upload(name: str) -> None:
    deployment = shape(name).one("Deployment", "rel-api")
    spec = deployment["spec"]["template"]["spec"]
    (api,) = spec["containers"]
    upload = int(shape(name).one("ConfigMap", "rel-api")["data"]["SEGINT_UPLOAD_LIMIT_SECONDS"])
    pause = api["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] > pause + upload
    assert f"--timeout-graceful-shutdown={upload}" in api["command"]
    assert "--no-proxy-headers" in api["command"]
    # Liveness asks for nothing but the process: a database that is away must not restart what could go on.
    assert api["livenessProbe"]["httpGet"]["path"] == api["startupProbe"]["httpGet"]["path"] == "/healthz"
    assert api["readinessProbe"]["httpGet"]["path"] == "/readyz"


@pytest.mark.parametrize("name", SHAPES)
def test_workers_see_the_whole_volume_but_models_only_to_be_read(name: str) -> None:
    for deployment in workers(name):
        spec = deployment["spec"]["template"]["spec"]
        (worker,) = spec["containers"]
        mounts = [one for one in worker["volumeMounts"] if one["name"] == "volume"]
        assert mounts == [
            {"name": "volume", "mountPath": VOLUME_DIR},
            {"name": "volume", "mountPath": f"{VOLUME_DIR}/models", "subPath": "models", "readOnly": True},
        ]
        # The folder of that path is there, and the services', before the node would make it.
        maker = spec["initContainers"][-1]
        assert maker["command"][-1] == f"{VOLUME_DIR}/models"
        assert {"name": "volume", "mountPath": VOLUME_DIR} in maker["volumeMounts"]


@pytest.mark.parametrize("name", SHAPES)
def test_shared_memory_and_warm_models_fit_the_memory_limit(name: str) -> None:
    for deployment in workers(name):
        spec = deployment["spec"]["template"]["spec"]
        data = shape(name).one("ConfigMap", deployment["metadata"]["name"])["data"]
        (shm,) = (one["emptyDir"] for one in spec["volumes"] if one["name"] == "shm")
        assert shm["medium"] == "Memory"
        limit = gib(spec["containers"][0]["resources"]["limits"]["memory"])
        assert limit > gib(shm["sizeLimit"]) + int(data["SEGINT_WARM_MEMORY_BYTES"]) / GIB


def test_gpus_are_asked_for_by_name_and_only_where_they_are_on() -> None:
    def limits(pool: str) -> Document:
        spec = shape("pools").one("Deployment", f"rel-worker-{pool}")["spec"]["template"]["spec"]
        return dict(spec["containers"][0]["resources"]["limits"])

    assert limits("large") == {"memory": "16Gi", "nvidia.com/mig-3g.40gb": 1}
    assert limits("small") == {"memory": "16Gi", "nvidia.com/gpu.shared": 1}
    assert limits("cpu") == {"memory": "16Gi"}
    single = shape("single-gpu").one("Deployment", "rel-worker-gpu")["spec"]["template"]["spec"]
    assert single["runtimeClassName"] == "nvidia"
    assert single["containers"][0]["image"] == "segint-worker:0.1.0-cuda"


def test_a_pool_can_switch_off_what_the_defaults_switch_on() -> None:
    """A merge that takes false for nothing would leave it on."""
    values = {
        **LEAST,
        "workerDefaults": {"gpu": {"enabled": True}, "replicas": 3, "models": ["a"]},
        "workers": [{"name": "cpu", "gpu": {"enabled": False}, "replicas": 0, "models": []}],
    }
    deployment = render(values).one("Deployment", "rel-worker-cpu")
    assert deployment["spec"]["replicas"] == 0
    assert "nvidia.com/gpu" not in deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    data = render(values).one("ConfigMap", "rel-worker-cpu")["data"]
    assert data["SEGINT_POOL_DEVICE"] == "cpu"
    assert data["SEGINT_POOL_MODELS"] == ""


def test_migrations_may_have_the_schemas_owner_and_be_a_hook() -> None:
    (job,) = shape("pools").of_kind("Job")
    application, owner = job["spec"]["template"]["spec"]["containers"][0]["env"]
    assert (application["name"], owner["name"]) == ("SEGINT_DATABASE_URL", "SEGINT_MIGRATION_DATABASE_URL")
    assert application["valueFrom"]["secretKeyRef"] == {"name": "segint", "key": "application-url"}
    assert owner["valueFrom"]["secretKeyRef"] == {"name": "segint", "key": "owner-url"}
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    # A hook before the installation finds nothing of the chart: no account, no ConfigMap.
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == "default"
    assert "envFrom" not in job["spec"]["template"]["spec"]["containers"][0]


def workers(name: str) -> list[Document]:
    found = [one for one in shape(name).of_kind("Deployment") if "-worker-" in one["metadata"]["name"]]
    assert found
    return found


def gib(quantity: str) -> float:
    match = re.fullmatch(r"(\d+)([MG])i", quantity)
    assert match
    return int(match[1]) / (1024 if match[2] == "M" else 1)


def variables_of(name: str, container: Document) -> Counter[str]:
    """How often each variable is given to a container, whole ConfigMaps counted in."""
    counted = Counter(one["name"] for one in container.get("env", []))
    for source in container.get("envFrom", []):
        counted.update(shape(name).one("ConfigMap", source["configMapRef"]["name"])["data"].keys())
    return counted


def restricted_faults(spec: Document) -> list[str]:
    """What a pod has that PodSecurity «restricted» refuses."""
    faults = [key for key in ("hostNetwork", "hostPID", "hostIPC", "hostUsers") if spec.get(key)]
    faults += [f"volume {one['name']}" for one in spec.get("volumes", []) if set(one) - {"name"} - ALLOWED_VOLUMES]
    whole = spec.get("securityContext", {})
    faults += [key for key in ("sysctls", "seLinuxOptions", "appArmorProfile", "windowsOptions") if whole.get(key)]
    for one in containers(spec):
        own = one.get("securityContext", {})
        context = whole | own
        capabilities = own.get("capabilities", {})
        wrong = {
            "privileged": own.get("privileged"),
            "hostPort": any(port.get("hostPort") for port in one.get("ports", [])),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is not False,
            "runAsNonRoot": context.get("runAsNonRoot") is not True,
            "runAsUser": context.get("runAsUser") == 0,
            "seccompProfile": context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"),
            "capabilities": capabilities.get("drop") != ["ALL"]
            or capabilities.get("add", []) not in ([], ["NET_BIND_SERVICE"]),
            "procMount": own.get("procMount", "Default") != "Default",
            "seLinuxOptions": own.get("seLinuxOptions"),
        }
        faults += [f"{one['name']}: {key}" for key, is_wrong in wrong.items() if is_wrong]
    return faults


def test_the_default_drain_limit_is_not_what_pods_end_by() -> None:
    """The services' own default would cut every long run short at each rollout."""
    default = Settings.model_fields["drain_seconds"].default
    assert int(shape("minimal").one("ConfigMap", "rel-worker-cpu")["data"]["SEGINT_DRAIN_SECONDS"]) > default
