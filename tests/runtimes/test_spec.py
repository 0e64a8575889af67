"""Specs as values: equal specs are one load, a changed file is another."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from services.core.model_spec import ModelSpec, StructureSpec, module_name_of

SPEC = ModelSpec(
    "model",
    "pytorch",
    artifact=Path("/volume/models/a"),
    artifact_sha256="ab" * 32,
    module=Path("/volume/models/b"),
    module_sha256="cd" * 32,
    module_name="unet",
    class_name="UNet",
    options={"inference": {"device": "cuda:0"}, "class_arguments": {"depth": 4}},
    structures=(StructureSpec("Brain", "brain", 1),),
    channels=("CT", "PET"),
)


def test_a_spec_survives_json_and_pickle() -> None:
    for copy in (ModelSpec.from_json(json.loads(json.dumps(SPEC.to_json()))), pickle.loads(pickle.dumps(SPEC))):
        assert copy == SPEC
        assert copy.fingerprint == SPEC.fingerprint
        assert hash(copy) == hash(SPEC)


def test_any_difference_changes_the_fingerprint() -> None:
    others = [
        replace(SPEC, artifact_sha256="00" * 32),
        replace(SPEC, module_sha256="00" * 32),
        replace(SPEC, options={"inference": {"device": "cpu"}}),
        replace(SPEC, channels=("CT",)),
        replace(SPEC, structures=(StructureSpec("Brain", "brain", 0),)),
        replace(SPEC, allow_pickle=True),
    ]
    assert len({spec.fingerprint for spec in [SPEC, *others]}) == len(others) + 1


@pytest.mark.parametrize(
    ("uploaded", "name"),
    [
        ("unet.py", "unet"),
        ("C:\\models\\UNet.py", "UNet"),
        ("/home/me/my-model v2.py", "my_model_v2"),
        ("3dunet.py", "_3dunet"),
        ("class.py", "class_"),
        ("", "_"),
    ],
)
def test_a_module_has_the_name_of_the_uploaded_file(uploaded: str, name: str) -> None:
    assert module_name_of(uploaded) == name
