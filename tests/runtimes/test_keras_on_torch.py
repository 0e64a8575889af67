"""Where TensorFlow is not installed, Keras files run on PyTorch, with the same masks; a SavedModel is refused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services.core.model_spec import ModelSpec
from tests.runtimes.artifacts_onnx import pass_through, weights
from tests.runtimes.artifacts_tensorflow import (
    FREE,
    keras,
    keras_network,
    saved,
    saved_model_zip,
    tensorflow_module,
    tensorflow_spec,
)
from tests.runtimes.running import segmented

KERNEL = weights(4, 2)

PATCHES = {"call": "sliding_window", "inference": {"patch": [6, 8, 10], "batch": 2}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a process without TensorFlow made of models that were saved with it: one process, it takes seconds."""
    folder = tmp_path_factory.mktemp("without")
    np.savez(folder / "volumes.npz", *volumes())
    cases = {name: spec.to_json() for name, spec in specs(folder).items()}
    (folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    code = [sys.executable, "-m", "tests.runtimes.without_tensorflow", str(folder)]
    ended = subprocess.run(code, capture_output=True, text=True, check=False, timeout=200)
    assert ended.returncode == 0, ended.stderr
    return folder


def volumes() -> list[NDArray[np.int16]]:
    random = np.random.default_rng(7)
    return [random.integers(-90, 90, (9, 14, 21), np.int16) for _ in range(2)]


def specs(folder: Path) -> dict[str, ModelSpec]:
    """By the names of their cases."""

    def of(path: Path, options: dict[str, Any]) -> ModelSpec:
        return tensorflow_spec(path, count=3, channels=("CT", "MR"), options=options)

    paths = {
        "keras": saved(folder, keras_network(KERNEL), "network.keras"),
        "keras h5": saved(folder, keras_network(KERNEL), "network.h5"),
    }
    lambdas = keras().Sequential([keras().Input((*FREE, 2)), keras().layers.Lambda(lambda image: image * 2)])
    return {
        **{name: of(path, {"call": "tensor"}) for name, path in paths.items()},
        **{f"{name} by patches": of(path, PATCHES) for name, path in paths.items()},
        "SavedModel": of(saved_model_zip(folder, tensorflow_module(pass_through(3, 2))), {}),
        "lambda": of(saved(folder, lambdas, "lambda.keras"), {}),
    }


def said(folder: Path) -> dict[str, str | None]:
    values: dict[str, str | None] = json.loads((folder / "said.json").read_text(encoding="utf-8"))
    return values


def test_it_ran_on_torch_and_nothing_was_missing(folder: Path) -> None:
    assert said(folder)["backend"] == "torch"
    assert said(folder)["missing"] is None


@pytest.mark.parametrize("case", ["keras", "keras h5", "keras by patches", "keras h5 by patches"])
def test_the_masks_are_those_of_tensorflow(case: str, folder: Path, tmp_path: Path) -> None:
    # Given the same model on TensorFlow, which answers as the library itself does
    expected = segmented(specs(tmp_path)[case], *volumes())
    # When it ran on PyTorch, then the masks are the same but for the rounding of near ties
    masks = np.load(folder / f"{case}.npy")
    assert len(masks) == len(expected) == 3
    for mask, other in zip(masks, expected, strict=True):
        assert other.any()
        assert np.count_nonzero(mask != other) <= mask.size // 1000


def test_a_saved_model_says_what_it_needs(folder: Path) -> None:
    needs = "RuntimeUnavailable: The model is a SavedModel, which needs TensorFlow; pip install 'segint[tensorflow]'"
    assert (said(folder)["SavedModel"] or "").startswith(needs)


def test_safe_mode_is_on_there_too(folder: Path) -> None:
    assert "ModelFailed: The model holds Python code, a Lambda layer" in (said(folder)["lambda"] or "")
