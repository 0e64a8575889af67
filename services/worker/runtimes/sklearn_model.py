"""Call a scikit-learn classifier with rows of features.

Imports scikit-learn, so only a host process imports this.
"""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from sklearn.base import is_classifier
from threadpoolctl import threadpool_limits

from services.core.errors import ModelFailed
from services.core.model_choices import Decision
from services.core.model_options import ModelOptions
from services.core.model_spec import ModelSpec
from services.worker.engine.model import EngineModel
from services.worker.runtimes.base import LoadedModel, NotedModel
from services.worker.runtimes.sklearn_artifact import read_classifier
from services.worker.runtimes.voxel_labels import (
    check_classes,
    check_column_count,
    declared_columns,
    options_of_labels,
    options_of_scores,
    wants_labels,
)
from services.worker.thread_limit import thread_count

ROWS_OF_A_THREAD = 2**12
"""Fewer are not worth a thread."""


@dataclass(frozen=True, slots=True)
class SklearnPredictor:
    """A fitted classifier, on the CPU. Rows are shared out among threads, each of which computes alone.

    So all processors work whatever `n_jobs` the model was trained with, and nothing is summed up in an order that
    changes from run to run, as a forest with several jobs does.
    """

    classifier: Any
    labels: NDArray[np.int64]
    """Of its classes, in their order."""
    scores: bool
    """Whether it answers with a probability per label, 0 for one that it was not trained on."""
    threads: int
    pool: ThreadPoolExecutor

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        parts = np.array_split(batch, max(1, min(self.threads, len(batch) // ROWS_OF_A_THREAD)))
        with warnings.catch_warnings(action="ignore"):  # such as that rows have no names
            return np.concatenate(list(self.pool.map(self._answer, parts)))

    def _answer(self, rows: NDArray[np.float32]) -> NDArray[np.generic]:
        with joblib.parallel_config(backend="sequential"):
            if not self.scores:
                return np.asarray(self.classifier.predict(rows)).astype(np.int64)
            probabilities = np.asarray(self.classifier.predict_proba(rows))
        if np.array_equal(self.labels, np.arange(probabilities.shape[1])):
            return probabilities
        spread = np.zeros((len(rows), int(self.labels.max()) + 1), probabilities.dtype)
        spread[:, self.labels] = probabilities
        return spread


def load(spec: ModelSpec, options: ModelOptions) -> LoadedModel:
    """The classifier of `spec`. Raises ModelFailed when a file or an option of it cannot work."""
    if options.inference.device not in {"auto", "cpu"}:
        raise ModelFailed(
            f"scikit-learn computes on the CPU only, and inference.device is {options.inference.device!r}; set it to "
            "auto or cpu."
        )
    classifier, note = read_classifier(spec)
    labels = _labels_of(classifier)
    columns = declared_columns(spec, options)
    trained_on = getattr(classifier, "n_features_in_", None)
    if trained_on is not None:
        check_column_count(columns, int(trained_on))
    # Labels between which others are missing would be outputs that no structure has.
    gaps = set(range(1, int(labels.max()))) - set(labels.tolist())
    unasked = options.postprocessing.decision is Decision.AUTO and bool(gaps)
    scores = hasattr(classifier, "predict_proba") and not unasked and not wants_labels(options)
    threads = thread_count()
    pool = ThreadPoolExecutor(threads, "predict", initializer=_compute_alone)
    predictor = SklearnPredictor(classifier, labels, scores, threads, pool)
    _try_out(predictor, columns)
    options = options_of_scores(options, spec) if scores else options_of_labels(options)
    model = EngineModel(spec, options, predictor)
    return model if note is None else NotedModel(model, note)


def _labels_of(classifier: Any) -> NDArray[np.int64]:
    """Its classes, checked. Raises ModelFailed."""
    name = type(classifier).__name__
    try:
        usable = is_classifier(classifier) and hasattr(classifier, "predict")
    except (AttributeError, TypeError, ValueError):
        usable = False  # no estimator, or a pipeline whose last step is none
    if not usable:
        raise ModelFailed(
            f"The model file holds a {name}, which is not a classifier; attach a fitted classifier of voxels, or a "
            "pipeline that ends in one."
        )
    classes = getattr(classifier, "classes_", None)
    if classes is None:
        raise ModelFailed(f"The {name} was not fitted before it was saved; fit it, save it and attach it again.")
    if isinstance(classes, list) or np.ndim(classes) != 1 or not len(classes):
        raise ModelFailed(
            f"The {name} gives a voxel several labels at once; train one that gives each voxel one label."
        )
    return check_classes(np.asarray(classes))


def _try_out(predictor: SklearnPredictor, columns: Sequence[str]) -> None:
    """Two rows: what a model of another version lacks shows when it is called. Raises ModelFailed."""
    name = type(predictor.classifier).__name__
    try:
        answer = predictor(np.zeros((2, len(columns)), np.float32))
    except Exception as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise ModelFailed(
            f"The {name} cannot predict from {len(columns)} features ({type(error).__name__}: {reason}); declare the "
            f"features it was trained on, and save it with scikit-learn {sklearn.__version__}, which is here."
        ) from error
    wanted = (2, int(predictor.labels.max()) + 1) if predictor.scores else (2,)
    if answer.shape != wanted:
        raise ModelFailed(
            f"The {name} gives a voxel several labels at once; train one that gives each voxel one label."
        )


def _compute_alone() -> None:
    """For a thread of the pool: BLAS and OpenMP start no threads of their own in it."""
    threadpool_limits(1)
