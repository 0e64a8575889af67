"""Trains classifiers of voxels on a synthetic volume, and writes the files that a user would upload."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import skops.io
import xgboost
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from services.core.model_spec import ModelSpec
from services.core.volumes import Geometry
from tests.runtimes.artifacts import structures
from tests.runtimes.whole_features import whole_features

FEATURES = ("intensity", "gaussian:1", "maximum:2")


def levels(count: int = 1) -> NDArray[np.int16]:
    """Columns of the background at -1000 and of each structure at 40, 200, 360, …, with noise."""
    random = np.random.default_rng(0)
    volume = np.full((6, 24, 24), -1000, np.int16)
    for label in range(1, count + 1):
        width = 24 // (count + 1)
        volume[1:5, 4:20, label * width : label * width + width // 2 + 1] = 160 * label - 120
    volume += random.integers(-20, 20, volume.shape, np.int16)
    return volume


def labels_of(volume: NDArray[np.int16]) -> NDArray[np.int64]:
    """0 for the background, 1, 2, … for the structures of `levels`; a label for each row."""
    return np.clip((volume.ravel().astype(np.int64) + 200) // 160, 0, None)


def training(
    count: int = 1, features: Sequence[str] = FEATURES, channels: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows and their labels."""
    volume = levels(count)
    return whole_features([volume] * channels, features, Geometry()), labels_of(volume)


def spec_of(artifact: Path | None, runtime: str, count: int = 1, **fields: Any) -> ModelSpec:
    fields["options"] = {"features": list(FEATURES)} | fields.get("options", {})
    return ModelSpec("model", runtime, artifact, structures=structures(count), **fields)


def forest(count: int = 1, channels: int = 1) -> RandomForestClassifier:
    return RandomForestClassifier(20, random_state=0).fit(*training(count, channels=channels))


def dumped(folder: Path, model: Any) -> Path:
    """By skops, under such a name as the server gives."""
    path = folder / "3f2a.artifact"
    skops.io.dump(model, path)
    return path


def pickled(folder: Path, model: Any, compress: Any = 0) -> Path:
    path = folder / "9c1b.artifact"
    joblib.dump(model, path, compress=compress)
    return path


def sklearn_skops(folder: Path, count: int = 1) -> ModelSpec:
    return spec_of(dumped(folder, forest(count)), "sklearn", count)


def sklearn_joblib(folder: Path, count: int = 1) -> ModelSpec:
    return spec_of(pickled(folder, forest(count)), "sklearn", count, allow_pickle=True)


def booster(count: int = 1, objective: str = "", mistaken: float = 0, **parameters: Any) -> xgboost.Booster:
    """`mistaken`: share of the training's labels that are another one."""
    rows, labels = training(count)
    labels = (labels + (np.random.default_rng(0).random(labels.size) < mistaken)) % (count + 1)
    objective = objective or ("binary:logistic" if count == 1 else "multi:softprob")
    given: dict[str, Any] = {"objective": objective, "nthread": 1}
    if parameters.get("booster") != "gblinear":
        given["max_depth"] = 3
    if objective.startswith("multi:"):
        given["num_class"] = count + 1
    return xgboost.train(given | parameters, xgboost.DMatrix(rows, labels), 8)


def saved(folder: Path, model: Any, form: str = "ubj") -> Path:
    """By XGBoost, then under such a name as the server gives."""
    path = folder / f"model.{form}"
    model.save_model(path)
    return path.rename(folder / "77aa.artifact")


def xgboost_json(folder: Path, count: int = 1) -> ModelSpec:
    return spec_of(saved(folder, booster(count), "json"), "xgboost", count)


def xgboost_ubj(folder: Path, count: int = 1) -> ModelSpec:
    return spec_of(saved(folder, booster(count)), "xgboost", count)
