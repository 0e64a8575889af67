"""Every supported shape is what Kubernetes takes, and the chart is what Helm takes."""

import shutil
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions, major_minor

from tests.charts.rendering import CHART, LEAST, SHAPES, containers, pods, render, shape, values_of

OLDEST = "1.30"
"""What Chart.yaml asks for at least."""
MINORS = [OLDEST, *list(dict.fromkeys(major_minor(version) for version in all_versions()))[-3:]]
CUSTOM = {
    "gateway.networking.k8s.io/v1/HTTPRoute",
    "keda.sh/v1alpha1/ScaledObject",
    "keda.sh/v1alpha1/TriggerAuthentication",
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
    "monitoring.coreos.com/v1/ServiceMonitor",
}
"""What others define, and nobody here has a schema of."""
WARNING = 2


def test_the_oldest_kubernetes_and_three_of_the_newest_are_tried() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["kubeVersion"] == f">={OLDEST}.0-0"
    assert len(set(MINORS)) == 4


def test_every_document_is_valid_in_all_of_them() -> None:
    """Strictly: a field that Kubernetes does not know is a fault."""
    # Given what all shapes consist of, once each
    documents = {yaml.dump(one): one for name in SHAPES for one in shape(name).documents}
    # When each is compared with the schemas
    faults, unknown = [], set()
    for one in documents.values():
        for minor in MINORS:
            try:
                kubernetes_validate.validate(one, minor, strict=True)
            except kubernetes_validate.SchemaNotFoundError:
                unknown.add(f"{one['apiVersion']}/{one['kind']}")
            except kubernetes_validate.ValidationError as error:
                faults.append(f"{minor} {one['kind']}/{one['metadata']['name']}: {list(error.path)}: {error.message}")
    # Then none has a fault, and those without a schema are known by name
    assert not faults
    assert unknown == CUSTOM


def test_the_schemas_are_strict() -> None:
    """What is tested with would see a wrong field."""
    document = yaml.safe_load(yaml.dump(shape("minimal").one("Deployment", "rel-api")))
    document["spec"]["template"]["spec"]["terminationGracePeriod"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, MINORS[-1], strict=True)


@pytest.mark.parametrize("name", SHAPES)
def test_every_document_is_in_the_releases_namespace_and_none_is_there_twice(name: str) -> None:
    documents = shape(name).documents
    assert {one["metadata"]["namespace"] for one in documents} == {"research"}
    names = [(one["kind"], one["metadata"]["name"]) for one in documents]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", SHAPES)
def test_the_same_values_are_the_same_release(name: str) -> None:
    """Nothing random and no time of day: `helm upgrade` without a change changes nothing."""
    assert render(values_of(name)) == shape(name)


@pytest.mark.parametrize("name", SHAPES)
def test_lint_finds_nothing(name: str) -> None:
    found = helm_python.lint(CHART, dict(values_of(name)), strict=True)
    assert [one for one in found["messages"] if one["severity"] >= WARNING] == []


def test_the_packed_chart_is_the_whole_chart(tmp_path: Path) -> None:
    """What .helmignore leaves out is not needed."""
    archive = helm_python.package(CHART, destination=tmp_path)
    assert render(values_of("pools"), chart=Path(archive)) == shape("pools")


def test_a_cluster_that_is_too_old_is_refused(tmp_path: Path) -> None:
    """The chart's `kubeVersion` is looked at: one from the future is refused."""
    # Given the chart as it is, and one that asks for a Kubernetes that is not there yet
    future = copy_of_chart(tmp_path, kubeVersion=">=1.99.0-0")
    config = helm_python.Config(storage_driver="memory")
    # Then the one installs, and the other is refused by its version
    config.install(CHART, "rel", dict(LEAST), dry_run="client")
    with pytest.raises(helm_python.HelmError, match=r"1\.99"):
        config.install(future, "rel", dict(LEAST), dry_run="client")


def test_the_chart_has_the_version_of_the_services() -> None:
    project = (CHART.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert f'\nversion = "{chart["appVersion"]}"\n' in project


def test_the_list_of_images_is_all_that_the_charts_own_values_pull() -> None:
    """What has to be mirrored where there is no internet."""
    # Given the list, and a release with everything on
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    listed = {one["image"] for one in yaml.safe_load(chart["annotations"]["artifacthub.io/images"])}
    everything = {
        **LEAST,
        "postgresql": {"enabled": True},
        "redis": {"enabled": True},
        "workers": [{"name": "gpu", "gpu": {"enabled": True}}, {"name": "cpu"}],
    }
    assert images_of(everything) == listed


def test_a_mirror_serves_every_image() -> None:
    images = images_of({**values_of("evaluation"), "global": {"imageRegistry": "mirror.example.org"}})
    assert images
    assert all(image.startswith("mirror.example.org/") for image in images)


def test_a_digest_goes_before_a_tag() -> None:
    digest = f"sha256:{'0' * 64}"
    images = images_of({**LEAST, "api": {"image": {"digest": digest, "tag": "7"}}})
    assert f"segint-api@{digest}" in images


def images_of(values: dict[str, Any]) -> set[str]:
    """Every image that a release names."""
    return {one["image"] for _, pod in pods(render(values)) for one in containers(pod)}


def copy_of_chart(folder: Path, **changes: str) -> Path:
    """The chart with another Chart.yaml."""
    target = folder / "segint"
    shutil.copytree(CHART, target)
    path = target / "Chart.yaml"
    path.write_text(yaml.dump(yaml.safe_load(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    return target
