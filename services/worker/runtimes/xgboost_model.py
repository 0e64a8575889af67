"""Read an XGBoost model, and call it with rows of features.

Imports XGBoost, so only a host process imports this.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xgboost
from numpy.typing import NDArray

from services.core.errors import ModelFailed
from services.core.model_options import ModelOptions
from services.core.model_spec import ModelSpec
from services.worker.engine.devices import device_of
from services.worker.engine.model import EngineModel
from services.worker.runtimes.base import LoadedModel, NotedModel
from services.worker.runtimes.ubjson import check_ubjson
from services.worker.runtimes.unused_gpu import unused_gpu
from services.worker.runtimes.voxel_labels import (
    check_column_count,
    declared_columns,
    options_of_labels,
    options_of_scores,
    wants_labels,
)
from services.worker.thread_limit import thread_limit

OBJECTIVES = ("multi:softprob", "multi:softmax", "binary:logistic")
JSON_SPACES = (b" ", b"\n", b"\r", b"\t")
SHORTEST_FILE = 64
"""Bytes. XGBoost's reader ends the process on an empty file; a model has hundreds."""


@dataclass(frozen=True, slots=True)
class XGBoostPredictor:
    """A booster. Rows come and answers go in the host's memory, also where it computes on a GPU."""

    booster: Any
    objective: str
    trees: tuple[int, int]
    """Rounds of boosting that count, as XGBoost's `iteration_range`."""
    scores: bool
    """Whether it answers with a score per label."""
    in_place: bool
    """Whether it takes rows as they are: on a GPU only rows that are there, and a linear booster none."""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        predict = self.booster.inplace_predict if self.in_place else self.booster.predict
        rows = batch if self.in_place else xgboost.DMatrix(batch)
        answer = np.asarray(predict(rows, iteration_range=self.trees, validate_features=False))
        if self.objective == "multi:softmax":
            return answer.astype(np.int64)
        if self.objective == "binary:logistic":
            answer = np.stack([1 - answer, answer], axis=1)
        return answer if self.scores else answer.argmax(axis=1)


def load(spec: ModelSpec, options: ModelOptions) -> LoadedModel:
    """The classifier of `spec`. Raises ModelFailed when the file or an option of it cannot work."""
    if spec.artifact is None:
        raise ModelFailed("The model has no model file; attach one written by save_model, as .json or .ubj.")
    booster = _read(spec.artifact)
    learner = json.loads(booster.save_config())["learner"]
    objective = learner["objective"]["name"]
    if objective not in OBJECTIVES:
        raise ModelFailed(
            f"The model was trained for {objective}, which gives no classes; train one for one of "
            f"{', '.join(OBJECTIVES)}."
        )
    if int(learner["learner_model_param"].get("num_target", 1)) > 1:
        raise ModelFailed("The model gives a voxel several labels at once; train one that gives each voxel one label.")
    columns = declared_columns(spec, options)
    check_column_count(columns, booster.num_features())
    if (threads := thread_limit()) is not None:
        booster.set_param({"nthread": threads})
    # The round at which early stopping found it best, as XGBClassifier has it.
    best = booster.attr("best_iteration")
    trees = (0, 0) if best is None else (0, int(best) + 1)
    on_gpu, note = _on_its_device(booster, options)
    scores = objective != "multi:softmax" and not wants_labels(options)
    in_place = not on_gpu and learner["gradient_booster"]["name"] != "gblinear"
    predictor = XGBoostPredictor(booster, objective, trees, scores, in_place)
    options = options_of_scores(options, spec) if scores else options_of_labels(options)
    model = EngineModel(spec, options, predictor)
    with warnings.catch_warnings(action="ignore"):  # what matters of them is checked
        predictor(np.zeros((1, len(columns)), np.float32))
    if on_gpu:
        _check_still_on_gpu(booster, options)
    return model if note is None else NotedModel(model, note)


def _read(path: Path) -> Any:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFailed(f"The model file cannot be read ({error.strerror}); attach it again.") from error
    if not content:
        raise ModelFailed("The model file is empty; save the model again and attach the new file.")
    if not content.startswith(b"{") or len(content) < SHORTEST_FILE:
        raise ModelFailed("The model file is not an XGBoost model; attach one written by save_model, as .json or .ubj.")
    booster = xgboost.Booster()
    try:
        # From memory, where it is told apart by content: the file on the volume has no .json or .ubj to its name.
        with warnings.catch_warnings(action="ignore"):
            if content[1:2] not in {b'"', *JSON_SPACES}:  # as XGBoost tells the two apart
                check_ubjson(content)
            booster.load_model(bytearray(content))
            booster.num_features()
    except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split("\n")[0].rsplit(": ", 1)[-1].split())[:200].rstrip(".")
        raise ModelFailed(
            f"The model file is damaged or not an XGBoost model ({reason}); save it again by save_model, as .json or "
            ".ubj, and attach the new file."
        ) from error
    return booster


def _on_its_device(booster: Any, options: ModelOptions) -> tuple[bool, str | None]:
    """Tell the booster where to compute: whether that is a GPU, and what is to be said where one is there unused.

    Raises ModelFailed when the device that was asked for is not to be had.
    """
    device = device_of(options)
    note = unused_gpu(options, device)
    if device.type == "cuda" and not xgboost.build_info().get("USE_CUDA"):
        if options.inference.device != "auto":
            raise ModelFailed(
                f"The device {options.inference.device!r} is there, but this XGBoost was built without CUDA; install "
                "the package xgboost instead of xgboost-cpu, or set the option inference.device to cpu."
            )
        note = (
            f"The model runs on the CPU beside the device {str(device)!r}, because this XGBoost was built without "
            "CUDA; the package xgboost instead of xgboost-cpu would use it."
        )
        device = torch.device("cpu")
    booster.set_param({"device": str(device)})
    return device.type == "cuda", note


def _check_still_on_gpu(booster: Any, options: ModelOptions) -> None:
    """XGBoost goes on with the CPU, and only warns, where it finds no GPU. Raises ModelFailed then."""
    device = json.loads(booster.save_config())["learner"]["generic_param"]["device"]
    if not device.startswith("cuda"):
        raise ModelFailed(
            f"XGBoost finds no GPU for the device {options.inference.device!r}; set the option inference.device to "
            "cpu, or give the worker a GPU and driver that this XGBoost can use."
        )
