"""The chart as Helm renders it, read once for each set of values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml

CHART = Path(__file__).parents[2] / "charts" / "segint"
SHAPES = tuple(sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml")))
"""The supported shapes of an installation: one values file each."""
LEAST: Mapping[str, Any] = {"secrets": {"existingSecret": "segint"}}

Document = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """What one release consists of."""

    documents: tuple[Document, ...]
    notes: str

    def of_kind(self, *kinds: str) -> list[Document]:
        """The documents of these kinds, in order."""
        return [one for one in self.documents if one["kind"] in kinds]

    def one(self, kind: str, name: str) -> Document:
        """The document of that kind and name."""
        found = [one for one in self.of_kind(kind) if one["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} documents {kind}/{name}"
        return found[0]


class _Loader(yaml.CSafeLoader):
    """Refuses a key that is there twice, of which YAML's readers would take the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep)
        assert len(found) == len(node.value), f"a key is there twice:{node.start_mark}"
        return found


def render(
    values: Mapping[str, Any], *, release: str = "rel", namespace: str = "research", chart: Path = CHART
) -> Rendered:
    """Render the chart; raises HelmValuesError and HelmRenderError as Helm does."""
    texts = _loaded(chart).render(dict(values), name=release, namespace=namespace)
    documents, notes = [], ""
    for path, text in sorted(texts.items()):
        if path.endswith("NOTES.txt"):
            notes = text
        else:
            documents += [one for one in yaml.load_all(text, _Loader) if one]
    return Rendered(tuple(documents), notes)


@cache
def values_of(shape: str) -> Mapping[str, Any]:
    """The values of a supported shape."""
    found: dict[str, Any] = yaml.safe_load((CHART / "ci" / f"{shape}-values.yaml").read_text(encoding="utf-8"))
    return found


@cache
def shape(name: str) -> Rendered:
    """A supported shape, as release «rel» in the namespace «research»."""
    return render(values_of(name))


def pod_of(document: Document) -> Document | None:
    """The pod's specification in a workload; None in anything else."""
    if document["kind"] == "Pod":
        return document["spec"]  # type: ignore[no-any-return] # YAML
    if document["kind"] in ("Deployment", "StatefulSet", "Job"):
        return document["spec"]["template"]["spec"]  # type: ignore[no-any-return]
    return None


def pods(rendered: Rendered) -> Iterator[tuple[str, Document]]:
    """Every pod's specification, with what it is called in a message."""
    for document in rendered.documents:
        pod = pod_of(document)
        if pod is not None:
            yield f"{document['kind']}/{document['metadata']['name']}", pod


def containers(pod: Document) -> list[Document]:
    """Of a pod, those of its beginning first."""
    return [*pod.get("initContainers", []), *pod["containers"]]


@cache
def _loaded(chart: Path) -> helm_python.Chart:
    return helm_python.Chart.load(chart)
