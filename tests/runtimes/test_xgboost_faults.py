"""Every way in which an XGBoost model can be wrong has a message of its own, which says what to do."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xgboost

from services.core.errors import ModelFailed
from services.core.model_spec import ModelSpec
from services.worker.runtimes.ubjson import check_ubjson
from tests.runtimes.artifacts_voxels import booster, saved, sklearn_skops, spec_of, training
from tests.runtimes.running import loaded


def file_of(folder: Path, content: bytes) -> ModelSpec:
    path = folder / "model.artifact"
    path.write_bytes(content)
    return spec_of(path, "xgboost")


def cut(folder: Path, form: str, share: float) -> ModelSpec:
    content = saved(folder, booster(), form).read_bytes()
    return file_of(folder, content[: int(len(content) * share)])


def model(folder: Path, count: int = 1, objective: str = "", **options: Any) -> ModelSpec:
    return spec_of(saved(folder, booster(count, objective)), "xgboost", count, options=options)


def several_labels_at_once(folder: Path) -> ModelSpec:
    rows, labels = training(1)
    classifier = xgboost.XGBClassifier(n_estimators=2).fit(rows, np.stack([labels, 1 - labels], axis=1))
    return spec_of(saved(folder, classifier), "xgboost")


def without(folder: Path, *keys: str) -> ModelSpec:
    content = json.loads(saved(folder, booster(), "json").read_bytes())
    part = content
    for key in keys[:-1]:
        part = part[key]
    del part[keys[-1]]
    return file_of(folder, json.dumps(content).encode())


DAMAGED = r"is damaged or not an XGBoost model \(.*\); save it again by save_model"
BAD: dict[str, tuple[Callable[[Path], ModelSpec], str]] = {
    "no artifact": (lambda f: spec_of(None, "xgboost"), r"no model file; attach one written by save_model"),
    "artifact is not there": (lambda f: spec_of(f / "gone", "xgboost"), r"cannot be read \(No such file.*attach it"),
    "no structure": (lambda f: spec_of(saved(f, booster()), "xgboost", 0), r"declares no structure"),
    "empty": (lambda f: file_of(f, b""), r"is empty; save the model again"),
    "a text": (
        lambda f: file_of(f, b"hello, model" * 20),
        r"is not an XGBoost model; attach one written by save_model",
    ),
    "a brace": (lambda f: file_of(f, b"{"), r"is not an XGBoost model"),
    "a pickle": (lambda f: file_of(f, pickle.dumps(booster())), r"is not an XGBoost model; attach one written by"),
    "of scikit-learn": (lambda f: spec_of(sklearn_skops(f).artifact, "xgboost"), r"is not an XGBoost model"),
    "other JSON": (lambda f: file_of(f, json.dumps({"a": [1] * 99}).encode()), DAMAGED),
    "JSON truncated": (lambda f: cut(f, "json", 0.5), DAMAGED),
    "JSON truncated at its end": (lambda f: cut(f, "json", 0.99), DAMAGED),
    "UBJSON truncated": (lambda f: cut(f, "ubj", 0.5), DAMAGED),
    "UBJSON truncated at its end": (lambda f: cut(f, "ubj", 0.99), DAMAGED),
    "UBJSON of nonsense": (lambda f: file_of(f, b"{L" + bytes(range(256))), DAMAGED),
    "UBJSON with something after it": (lambda f: file_of(f, saved(f, booster()).read_bytes() + b"}"), DAMAGED),
    "no objective": (lambda f: without(f, "learner", "objective"), DAMAGED),
    "no trees": (lambda f: without(f, "learner", "gradient_booster", "model", "trees"), DAMAGED),
    "a regression": (
        lambda f: model(f, objective="reg:squarederror"),
        r"trained for reg:squarederror, which gives no classes; train one for one of multi:softprob, multi:softmax",
    ),
    "several labels at once": (several_labels_at_once, r"gives a voxel several labels at once; train one"),
    "wrong number of features": (
        lambda f: model(f, features=["intensity", "position"]),
        r"trained on 3 features, but the option features gives it 4 \(intensity, x, y, z\); declare those",
    ),
    "wrong number of channels": (
        lambda f: spec_of(saved(f, booster()), "xgboost", channels=("CT", "PET")),
        r"trained on 3 features, but .* 6 \(CT intensity, CT gaussian:1, CT maximum:2, PET intensity,",
    ),
    "no features": (lambda f: ModelSpec("m", "xgboost", saved(f, booster())), r"call: voxels needs features"),
    "scores of one without": (
        lambda f: model(f, 2, "multi:softmax", postprocessing={"decision": "threshold"}),
        r"gives labels and no scores, and postprocessing\.decision is threshold; leave it out",
    ),
    "device beyond the last": (
        lambda f: model(f, inference={"device": "cuda:99"}),
        r"'cuda:99' is not available to this worker, which has cpu",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_model_is_refused_with_its_own_message(case: str, tmp_path: Path) -> None:
    make, message = BAD[case]
    with pytest.raises(ModelFailed, match=message) as failure:
        loaded(make(tmp_path))
    assert failure.value.details.endswith(".")
    assert "\n" not in failure.value.details
    assert ".cc:" not in failure.value.details


def test_a_ubjson_file_is_whole_only_as_it_is(tmp_path: Path) -> None:
    # Given a model's file: XGBoost reads on beyond the end of one that is cut short, so it must never get such
    content = saved(tmp_path, booster(2)).read_bytes()
    # Then it is whole as it is, and no part of it is, nor with something after it
    check_ubjson(content)
    for length in range(len(content)):
        with pytest.raises(ValueError, match=r"it is cut short, and ends at byte \d+|goes on after its end"):
            check_ubjson(content[:length])
    with pytest.raises(ValueError, match="goes on after its end"):
        check_ubjson(content + b"}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 5000, "nested too deeply at byte 101"),
        (b"{L" + b"\xff" * 8, "a length below zero at byte 1"),
        (b"{L\x7f" + b"\xff" * 7, "cut short"),
        (b"[$S#U\x01", r"has b'#' at byte 3"),
        (b"{U\x01a?}", r"has b'\?' at byte 4"),
    ],
)
def test_what_is_no_ubjson_is_told(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_ubjson(content)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_without_cuda_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFailed, match=r"'cuda' is not available to this worker, which has cpu"):
        loaded(model(tmp_path, inference={"device": "cuda"}))
