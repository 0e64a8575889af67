"""Every value is documented, does something, and stops the installation with a sentence where it is wrong."""

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from typing import Any

import helm_python
import pytest
import yaml

from tests.charts.rendering import CHART, LEAST, SHAPES, Rendered, render, values_of

Path = tuple[str, ...]

TEXT = (CHART / "values.yaml").read_text(encoding="utf-8")
DEFAULTS: dict[str, Any] = yaml.safe_load(TEXT)
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

BASES: tuple[Mapping[str, Any], ...] = (
    *(values_of(name) for name in SHAPES),
    # Every part that is off otherwise, so that what belongs to it can be seen to do something.
    {
        **LEAST,
        "api": {"autoscaling": {"enabled": True}, "service": {"type": "NodePort"}},
        "workerDefaults": {"autoscaling": {"enabled": True}, "gpu": {"enabled": True}},
        "workers": [{"name": "one"}],
        "test": {"tokenSecret": "token"},
        "ingress": {"enabled": True, "host": "h.example.org", "tls": {"clusterIssuer": "issuer"}},
    },
    {**LEAST, "workers": [{"name": "one"}], "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}]}},
)


def leaves(values: Mapping[str, Any], above: Path = ()) -> Iterator[Path]:
    """Paths of everything that can be set: what is empty, a list or no mapping ends a path."""
    for key, value in values.items():
        path = (*above, key)
        if isinstance(value, dict) and value and not schema_of(path).get("examples"):
            yield from leaves(value, path)
        else:
            yield path


def schema_of(path: Path) -> dict[str, Any]:
    """What the schema says of a path."""
    found = SCHEMA
    for key in path:
        found = resolved(found)
        found = found["properties"][key]
    return resolved(found)


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        found: Any = SCHEMA
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


LEAVES = tuple(leaves({key: value for key, value in DEFAULTS.items() if key != "workers"}))


def another_value(path: Path, value: Any) -> Any:
    """A value that the schema takes and that is not this one."""
    schema = schema_of(path)
    candidates: list[Any] = [*schema.get("examples", ()), *schema.get("enum", ())]
    if isinstance(value, bool):
        candidates.append(not value)
    elif isinstance(value, int | float):
        candidates.append(value + 1)
    return next(one for one in candidates if one != value)


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_every_value_does_something(path: Path) -> None:
    """Changed alone, in one supported shape or another, it changes what is installed or said."""
    assert any(changes(base, path) for base in range(len(BASES))), f"{'.'.join(path)} changes nothing"


def test_a_value_that_does_nothing_is_seen() -> None:
    assert not any(changes(base, ("global", "somebody")) for base in range(len(BASES)))


def changes(base: int, path: Path) -> bool:
    values: Any = deepcopy(dict(BASES[base]))
    place, default = values, DEFAULTS
    for key in path[:-1]:
        place = place.setdefault(key, {})
        default = default.get(key, {})
    now = place.get(path[-1], default.get(path[-1]))
    place[path[-1]] = "something" if path[0] == "global" and path[-1] not in default else another_value(path, now)
    try:
        return render(values) != rendered_base(base)
    except helm_python.HelmRenderError:
        return False  # not in this shape


@cache
def rendered_base(base: int) -> Rendered:
    return render(BASES[base])


def test_every_key_has_a_comment_before_it() -> None:
    """Comments are the documentation: a key without one cannot be set by anybody who does not read templates."""
    lines = TEXT.splitlines()
    bare = [
        ".".join(path)
        for path, line in key_lines(yaml.compose(TEXT, yaml.SafeLoader))
        if not lines[line - 1].lstrip().startswith("# ")
    ]
    assert bare == []


def key_lines(node: Any, above: Path = ()) -> Iterator[tuple[Path, int]]:
    """Where each key of the block style is, counted from 0; what is written in one line is one value."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        for key, value in node.value:
            path = (*above, key.value)
            if above and above[-1] == "resources":
                continue  # requests and limits are Kubernetes' own
            yield path, key.start_mark.line
            yield from key_lines(value, path)
    elif isinstance(node, yaml.SequenceNode) and not node.flow_style and above == ("workers",):
        for item in node.value:
            yield from key_lines(item, (*above, "[]"))


def test_the_schema_knows_every_key_and_no_other() -> None:
    """Only `global` is open."""
    mapped = {path for path in objects(SCHEMA) if not path or path[0] != "global"}
    for path in mapped:
        schema = schema_of(path)
        if "properties" not in schema:
            continue
        assert schema["additionalProperties"] is False, path
        given: Any = DEFAULTS
        for key in path:
            given = given[key]
        if path not in {("workerDefaults", "settings")} and path[-1:] != ("resources",):
            assert set(given) == set(schema["properties"]), path


def objects(schema: dict[str, Any], above: Path = ()) -> Iterator[Path]:
    yield above
    for key, inner in resolved(schema).get("properties", {}).items():
        if resolved(inner).get("properties"):
            yield from objects(inner, (*above, key))


def test_a_pool_may_have_what_the_defaults_have() -> None:
    pool = resolved(SCHEMA["properties"]["workers"])["items"]
    defaults = SCHEMA["properties"]["workerDefaults"]["properties"]
    assert {key: value for key, value in pool["properties"].items() if key != "name"} == defaults
    assert pool["required"] == ["name"]


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"replicas": 3}, r"additional properties 'replicas' not allowed"),
    ({"settings": {"logLevel": "LOUD"}}, r"/settings/logLevel.*'DEBUG', 'INFO', 'WARNING', 'ERROR'"),
    ({"settings": {"loglevel": "INFO"}}, r"/settings.*'loglevel' not allowed"),
    ({"settings": {"maxBodyBytes": "1Gi"}}, r"/settings/maxBodyBytes.*got string, want integer"),
    ({"settings": {"leaseSeconds": 2}}, r"/settings/leaseSeconds.*minimum: got 2, want 3"),
    ({"settings": {"publicUrl": "segint.example.org"}}, r"/settings/publicUrl.*\^\(https\?://\.\+\)\?\$"),
    ({"settings": {"trustedNetworks": ["the clinic"]}}, r"/settings/trustedNetworks/0"),
    ({"api": {"replicas": "two"}}, r"/api/replicas.*got string, want integer"),
    ({"api": {"service": {"type": "External"}}}, r"/api/service/type.*'ClusterIP', 'NodePort', 'LoadBalancer'"),
    ({"api": {"image": {"digest": "sha256:1"}}}, r"/api/image/digest.*sha256"),
    ({"workers": []}, r"/workers.*minItems: got 0, want 1"),
    ({"workers": [{"gpu": {"enabled": True}}]}, r"/workers/0.*missing property 'name'"),
    ({"workers": [{"name": "Large-Pool"}]}, r"/workers/0/name.*'Large-Pool' does not match pattern"),
    ({"workers": [{"name": "api"}]}, r"/workers/0/name"),
    ({"workers": [{"name": "a", "gpu": {"enabled": "yes"}}]}, r"/workers/0/gpu/enabled.*got string, want boolean"),
    ({"workers": [{"name": "a", "models": ["x,y"]}]}, r"/workers/0/models/0"),
    ({"workers": [{"name": "a", "runtimes": ["torch"]}]}, r"/workers/0/runtimes/0.*'pytorch'"),
    ({"workers": [{"name": "a", "settings": {"logLevel": "INFO"}}]}, r"/workers/0/settings.*'logLevel' not allowed"),
    ({"volume": {"accessMode": "ReadOnlyMany"}}, r"/volume/accessMode.*'ReadWriteMany', 'ReadWriteOnce'"),
    ({"ingress": {"preset": "haproxy"}}, r"/ingress/preset.*'', 'nginx', 'traefik'"),
    # What is wrong only together with something else
    ({"secrets": {"existingSecret": ""}}, r"secrets\.existingSecret is empty.*kubectl create secret"),
    ({"workers": [{"name": "a"}, {"name": "a"}]}, r"workers has two pools named «a»; give each its own name"),
    (
        {"workers": [{"name": "a", "models": ["m"], "exceptModels": ["n"]}]},
        r"The pool «a» of workers has both models and exceptModels.*leave one of them empty",
    ),
    (
        {"workers": [{"name": "a", "autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 2}}]},
        r"«a» of workers has autoscaling\.minReplicas 3, more than its autoscaling\.maxReplicas, which is 2",
    ),
    (
        {"workers": [{"name": "a", "resources": {"limits": {"memory": "8Gi"}}}]},
        r"«a» of workers has resources\.limits\.memory of 8589934592 bytes.*sharedMemorySizeLimit.*raise the first",
    ),
    (
        {"workers": [{"name": "a", "temporarySizeLimit": "512Mi"}]},
        r"«a» of workers has temporarySizeLimit of 536870912 bytes.*modelScratchBytes",
    ),
    (
        {"workers": [{"name": "a", "extraEnv": {"SEGINT_LOG_LEVEL": "INFO"}}]},
        r"«a» of workers\.extraEnv has SEGINT_LOG_LEVEL.*use the key of settings",
    ),
    ({"api": {"extraEnv": {"SEGINT_AUTH": "open"}}}, r"api\.extraEnv has SEGINT_AUTH"),
    (
        {"api": {"podLabels": {"app.kubernetes.io/name": "x"}}},
        r"api\.podLabels has app\.kubernetes\.io/name.*use another label",
    ),
    (
        {"api": {"podAnnotations": {"checksum/settings": "x"}}},
        r"api\.podAnnotations has checksum/settings.*use another annotation",
    ),
    (
        {"workers": [{"name": "a", "podAnnotations": {"checksum/settings": "x"}}]},
        r"«a» of workers\.podAnnotations has checksum/settings",
    ),
    (
        {"api": {"autoscaling": {"enabled": True, "minReplicas": 5}}},
        r"api\.autoscaling\.minReplicas is 5, more than api\.autoscaling\.maxReplicas, which is 4",
    ),
    (
        {"api": {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}}},
        r"api\.resources\.requests\.cpu.*is missing; set it",
    ),
    ({"ingress": {"enabled": True}}, r"ingress\.host is empty.*segint\.example\.org"),
    (
        {"ingress": {"enabled": True, "host": "h.example.org"}},
        r"ingress\.tls\.enabled is true, but there is no certificate; set ingress\.tls\.existingSecret",
    ),
    ({"httpRoute": {"enabled": True}}, r"httpRoute\.parentRefs is empty.*name it as"),
    (
        {"migrations": {"hook": True}, "postgresql": {"enabled": True}},
        r"migrations\.hook is true.*postgresql\.enabled.*set one of them to false",
    ),
)


ELSEWHERE = (
    "The release's name has",
    "settings.heartbeatSeconds",
    "settings.janitorIntervalSeconds",
    "settings.orphanSec",
)
"""Sentences that `test_names` and `test_settings` try."""


@pytest.mark.parametrize(("values", "sentence"), WRONG, ids=[json.dumps(values)[:60] for values, _ in WRONG])
def test_a_wrong_value_stops_with_the_key_and_what_is_allowed(values: dict[str, Any], sentence: str) -> None:
    assert re.search(sentence, refusal(values)), refusal(values)


def test_every_sentence_of_the_templates_is_tried() -> None:
    # Given the sentences as the templates have them
    templates = "".join(path.read_text(encoding="utf-8") for path in (CHART / "templates").glob("*.tpl"))
    sentences = re.findall(r'\bfail (?:\(printf )?"([^"]+)"', templates)
    assert len(sentences) == len(re.findall(r"\bfail ", templates))
    # Then each was given as an answer to one wrong value or another
    given = [refusal(values) for values, _ in WRONG]
    untried = [
        one
        for one in sentences
        if not one.startswith(ELSEWHERE)
        and not any(re.search(re.sub(r"%[a-z]", ".*", re.escape(one)), answer) for answer in given)
    ]
    assert untried == []


def test_other_charts_keys_are_allowed_in_global_only() -> None:
    render({**LEAST, "global": {"storageClass": "of another chart"}})


def refusal(values: dict[str, Any]) -> str:
    """What Helm says to these values, in one line."""
    with pytest.raises((helm_python.HelmValuesError, helm_python.HelmRenderError)) as caught:
        render({**LEAST, **values})
    return str(caught.value).replace("\n", " ")
