"""Releases beside each other share no name, and what Kubernetes does not let change stays as it is."""

from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from tests.charts.rendering import LEAST, SHAPES, Document, Rendered, render, shape, values_of
from tests.charts.test_rendering import copy_of_chart

NAME_LIMIT = 63
JOB_NAME_LIMIT = 63
POD_SUFFIX = len("-6d4cf56db6-abcde")


def names(rendered: Rendered) -> set[tuple[str, str]]:
    return {(one["kind"], one["metadata"]["name"]) for one in rendered.documents}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("other", ["segint", "rel-api", "rel-worker", "rel-segint", "rel-migrate"])
def test_two_releases_have_no_name_in_common(name: str, other: str) -> None:
    # Given two releases of one shape whose names begin alike
    ours, theirs = shape(name), render(values_of(name), release=other)
    # Then no object is called the same, but for what the release was told to share
    assert not names(ours) & names(theirs)
    # Neither does a selector of the one find the other's pods
    for one in ours.documents:
        for selector in selectors_of(one):
            assert selector["app.kubernetes.io/instance"] == "rel"


def test_a_release_may_be_called_by_a_number() -> None:
    """Helm takes 123 for a name, and Kubernetes takes no number for a label."""
    for one in render(values_of("evaluation"), release="123").documents:
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == "123"
        for selector in selectors_of(one):
            assert selector["app.kubernetes.io/instance"] == "123"


def test_two_releases_share_no_key_in_redis() -> None:
    namespaces = {
        render(LEAST, release=release, namespace=namespace).one("ConfigMap", f"{release}-api")["data"][
            "SEGINT_REDIS_NAMESPACE"
        ]
        for release, namespace in (("a", "n"), ("b", "n"), ("a", "m"), ("a-b", "n"), ("b", "n-a"))
    }
    assert len(namespaces) == 5


@pytest.mark.parametrize("name", SHAPES)
def test_a_new_version_changes_no_selector(name: str, tmp_path: Path) -> None:
    """Kubernetes refuses an upgrade that would, and a Job or a claim's template that differs."""
    # Given the same release of this chart and of a later one
    later_chart = copy_of_chart(tmp_path, version="9.8.7", appVersion="9.8.7")
    now, later = shape(name), render(values_of(name), chart=later_chart)
    for kind in ("Deployment", "StatefulSet"):
        assert [immutable_part(one) for one in now.of_kind(kind)] == [
            immutable_part(one) for one in later.of_kind(kind)
        ]
    # Then another image makes another Job, because it could not be changed
    (job,), (later_job,) = now.of_kind("Job"), later.of_kind("Job")
    assert job["metadata"]["name"] != later_job["metadata"]["name"]


def test_a_jobs_name_changes_with_whatever_is_in_it_and_with_nothing_else() -> None:
    def job(**values: Any) -> Document:
        (found,) = render({**LEAST, **values}).of_kind("Job")
        return found

    first = job()
    changed = job(migrations={"backoffLimit": 7})
    assert changed["metadata"]["name"] != first["metadata"]["name"]
    assert job(api={"replicas": 3}) == first


@pytest.mark.parametrize("name", SHAPES)
def test_names_fit_for_the_longest_name_of_a_release(name: str) -> None:
    # Given the longest name that the chart takes
    rendered = render(values_of(name), release="r" * 40)
    for one in rendered.documents:
        assert len(one["metadata"]["name"]) <= NAME_LIMIT, one["metadata"]["name"]
    # Then the label that a StatefulSet gives its pods fits, too
    for one in rendered.of_kind("StatefulSet"):
        assert len(one["metadata"]["name"]) + len("-6d4cf56db6") <= NAME_LIMIT
    # And a longer name is refused with a sentence
    with pytest.raises(helm_python.HelmRenderError, match="41 characters, but at most 40 are allowed"):
        render(values_of(name), release="r" * 41)


@pytest.mark.parametrize("name", SHAPES)
def test_selectors_name_nothing_but_name_instance_and_component(name: str) -> None:
    for one in shape(name).documents:
        for selector in selectors_of(one):
            assert set(selector) <= {
                "app.kubernetes.io/name",
                "app.kubernetes.io/instance",
                "app.kubernetes.io/component",
            }


def test_every_service_budget_and_policy_finds_pods() -> None:
    """A selector that finds none would be seen by nobody."""
    for name in SHAPES:
        rendered = shape(name)
        labels = [
            one["spec"]["template"]["metadata"]["labels"]
            for one in rendered.of_kind("Deployment", "StatefulSet", "Job")
        ] + [one["metadata"]["labels"] for one in rendered.of_kind("Pod")]
        for one in rendered.of_kind("Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"):
            found = [pod for pod in labels if any(selects(selector, pod) for selector in raw_selectors_of(one))]
            assert found, f"{name}: {one['kind']}/{one['metadata']['name']}"


def immutable_part(document: Document) -> str:
    spec = document["spec"]
    kept = {"name": document["metadata"]["name"], "selector": spec["selector"]}
    if document["kind"] == "StatefulSet":
        kept |= {key: spec[key] for key in ("serviceName", "volumeClaimTemplates")}
    return yaml.dump(kept)


def raw_selectors_of(document: Document) -> list[Document]:
    spec = document.get("spec", {})
    if document["kind"] == "Service":
        return [{"matchLabels": spec["selector"]}]
    return [spec[key] for key in ("selector", "podSelector") if key in spec]


def selectors_of(document: Document) -> list[dict[str, str]]:
    """The labels that a document selects pods by."""
    return [selector["matchLabels"] for selector in raw_selectors_of(document)]


def selects(selector: Document, labels: dict[str, str]) -> bool:
    matches = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return matches and all(labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", []))
