"""XGBoost's classifiers draw what XGBoost itself finds for the features of the whole volume."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xgboost
from sklearn.model_selection import train_test_split

from services.core.errors import ModelFailed
from tests.runtimes.artifacts_voxels import FEATURES, booster, labels_of, levels, saved, spec_of, training
from tests.runtimes.running import loaded, segmented
from tests.runtimes.test_sklearn import unseen
from tests.runtimes.whole_features import whole_features

ROWS = whole_features([unseen()], FEATURES)


@pytest.mark.parametrize("form", ["json", "ubj"])
@pytest.mark.parametrize("objective", ["multi:softprob", "multi:softmax"])
@pytest.mark.parametrize("kind", ["gbtree", "dart", "gblinear"])
def test_masks_are_what_the_booster_itself_predicts(objective: str, form: str, kind: str, tmp_path: Path) -> None:
    # Given a booster of two structures
    model = booster(2, objective, booster=kind)
    predicted = model.predict(xgboost.DMatrix(ROWS))
    expected = predicted if objective == "multi:softmax" else predicted.argmax(axis=1)
    # When its file segments a volume
    first, second = segmented(spec_of(saved(tmp_path, model, form), "xgboost", 2), unseen())
    # Then each structure is where it predicts its label
    np.testing.assert_array_equal(first.ravel(), expected == 1)
    np.testing.assert_array_equal(second.ravel(), expected == 2)
    assert first.any() or kind == "gblinear"


@pytest.mark.parametrize("decision", ["auto", "labels", "argmax", "threshold"])
def test_a_binary_model_has_two_outputs(decision: str, tmp_path: Path) -> None:
    # Given a booster, and a threshold that decides otherwise than the greater score does
    model = booster(1, mistaken=0.3)
    probability = model.predict(xgboost.DMatrix(ROWS))
    greatest = float(probability.max())
    options: dict[str, Any] = {"postprocessing": {"decision": decision, "threshold": greatest - 1e-4}}
    if decision == "threshold":
        options["ignored_outputs"] = [0]
    # When its file segments, then a voxel is decided by its probability
    (mask,) = segmented(spec_of(saved(tmp_path, model), "xgboost", options=options), unseen())
    threshold = greatest - 1e-4 if decision == "threshold" else 0.5
    np.testing.assert_array_equal(mask.ravel(), probability > threshold)
    assert np.any((probability > 0.5) & (probability <= greatest - 1e-4))


def test_the_background_may_be_mapped(tmp_path: Path) -> None:
    mapping = {"structure 0": [1, 2], "structure 1": 0}
    tissue, air = segmented(spec_of(saved(tmp_path, booster(2)), "xgboost", 2, options={"mapping": mapping}), levels(2))
    np.testing.assert_array_equal(tissue.ravel(), labels_of(levels(2)) > 0)
    np.testing.assert_array_equal(air, ~tissue)


def test_the_best_round_of_early_stopping_counts(tmp_path: Path) -> None:
    # Given a classifier that was trained on noise until it only got worse
    rows, labels = training(2)
    labels = np.where(np.random.default_rng(0).random(labels.size) < 0.4, (labels + 1) % 3, labels)
    train_rows, test_rows, train_labels, test_labels = train_test_split(rows, labels, random_state=0)
    model = xgboost.XGBClassifier(n_estimators=60, learning_rate=1.0, early_stopping_rounds=8, n_jobs=1)
    model.fit(train_rows, train_labels, eval_set=[(test_rows, test_labels)], verbose=False)
    expected = model.predict(ROWS)
    assert np.any(expected != model.get_booster().predict(xgboost.DMatrix(ROWS)).argmax(axis=1))
    # When its file segments, then the rounds after the best one do not count, as in the classifier itself
    first, second = segmented(spec_of(saved(tmp_path, model), "xgboost", 2), unseen())
    np.testing.assert_array_equal(first.ravel(), expected == 1)
    np.testing.assert_array_equal(second.ravel(), expected == 2)


@pytest.mark.parametrize(("variable", "threads"), [("1", 1), ("3,2", 3), ("", 0), ("many", 0), ("0", 0)])
def test_threads_are_those_of_the_environment(
    variable: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    model: Any = loaded(spec_of(saved(tmp_path, booster()), "xgboost"))
    config = json.loads(model._predictor.booster.save_config())
    assert int(config["learner"]["generic_param"]["nthread"]) == threads


WITHOUT_CUDA = pytest.mark.skipif(xgboost.build_info().get("USE_CUDA", False), reason="XGBoost has CUDA here")


@WITHOUT_CUDA
@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_a_gpu_that_the_worker_has_is_not_passed_over(
    wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` means the worker's GPU, as PyTorch sees it; the CPU in its place would be slower, unnoticed."""
    monkeypatch.setattr("services.worker.runtimes.xgboost_model.device_of", lambda _: torch.device("cuda:0"))
    spec = spec_of(saved(tmp_path, booster()), "xgboost", options={"inference": {"device": wanted}})
    with pytest.raises(ModelFailed, match=r"'cuda:0' is there, but this XGBoost was built .*inference\.device to cpu"):
        loaded(spec)


@WITHOUT_CUDA
@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_a_gpu_that_xgboost_does_not_find_is_an_error(
    wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where it has CUDA and the driver is too old for it: XGBoost itself goes on with the CPU."""
    monkeypatch.setattr("services.worker.runtimes.xgboost_model.device_of", lambda _: torch.device("cuda:0"))
    monkeypatch.setattr(xgboost, "build_info", lambda: {"USE_CUDA": True})
    spec = spec_of(saved(tmp_path, booster()), "xgboost", options={"inference": {"device": wanted}})
    with pytest.raises(ModelFailed, match=f"XGBoost finds no GPU for the device '{wanted}'; set the option"):
        loaded(spec)


@pytest.mark.parametrize("name", ["sklearn", "xgboost"])
def test_the_runtime_can_be_asked_without_the_library(name: str) -> None:
    # Given a process in which neither library can be found
    code = (
        "import importlib.util as u, sys\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda n, p=None: None if n in {'sklearn', 'skops', 'xgboost'} else real(n, p)\n"
        "from services.worker.runtimes import runtime\n"
        f"print(runtime({name!r}).missing())\n"
        "assert not {'sklearn', 'skops', 'xgboost'} & set(sys.modules)\n"
    )
    # When its runtime is asked, then it says what to install
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert f"pip install 'segint[{name}]'" in done.stdout
