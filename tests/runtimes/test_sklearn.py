"""scikit-learn's classifiers draw what scikit-learn itself finds for the features of the whole volume."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from services.core.errors import ModelFailed
from services.core.volumes import Geometry, Volume
from tests.runtimes.artifacts_voxels import (
    FEATURES,
    dumped,
    forest,
    labels_of,
    levels,
    pickled,
    sklearn_skops,
    spec_of,
    training,
)
from tests.runtimes.running import Heard, loaded, segmented
from tests.runtimes.whole_features import whole_features


def unseen(count: int = 2, seed: int = 5) -> NDArray[np.int16]:
    """Another volume of the same tissues, with far more noise, so that a classifier has something to decide."""
    volume = levels(count)[::-1].copy()
    volume += np.random.default_rng(seed).integers(-90, 90, volume.shape, np.int16)
    return volume


CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "forest": lambda: RandomForestClassifier(20, random_state=0),
    "forest of several jobs": lambda: RandomForestClassifier(20, random_state=0, n_jobs=2),
    "boosted trees": lambda: GradientBoostingClassifier(n_estimators=5, random_state=0),
    "boosted histograms": lambda: HistGradientBoostingClassifier(max_iter=5, random_state=0),
    "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "nearest neighbours": lambda: KNeighborsClassifier(3),
    "perceptron": lambda: make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=20, random_state=0)),
    "no probabilities": lambda: make_pipeline(StandardScaler(), LinearSVC()),
}


@pytest.mark.parametrize("write", [dumped, pickled], ids=["skops", "joblib"])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_masks_are_what_the_classifier_itself_predicts(kind: str, write: Any, tmp_path: Path) -> None:
    # Given a classifier of two structures
    with warnings.catch_warnings(action="ignore"):  # that a perceptron has not converged
        classifier = CLASSIFIERS[kind]().fit(*training(2))
    expected = classifier.predict(whole_features([unseen()], FEATURES)).reshape(unseen().shape)
    assert len(np.unique(expected)) > 1
    # When its file segments a volume
    spec = spec_of(write(tmp_path, classifier), "sklearn", 2, allow_pickle=write is pickled)
    first, second = segmented(spec, unseen())
    # Then each structure is where it predicts its label
    np.testing.assert_array_equal(first, expected == 1)
    np.testing.assert_array_equal(second, expected == 2)


def test_channels_and_places_are_columns_in_the_documented_order(tmp_path: Path) -> None:
    # Given a tree that was trained on two channels and the place, which decides much
    geometry = Geometry((-10, 20, 30), spacing=(0.9, 1.1, 2.5))
    features = ("gaussian:2", "position", "intensity")
    arrays = [unseen(seed=1), unseen(seed=2)]
    rows = whole_features(arrays, features, geometry)
    labels = labels_of(arrays[1]).clip(0, 1) ^ (rows[:, 2] > 30)
    tree = DecisionTreeClassifier(max_depth=8, random_state=0).fit(rows, labels)
    assert np.count_nonzero(tree.feature_importances_ > 0.01) >= 2
    # When it segments another patient's volumes, given in the other order
    others = [unseen(seed=3), unseen(seed=4)]
    options = {"features": features, "preprocessing": {"channel_order": ["A", "B"]}}
    spec = spec_of(dumped(tmp_path, tree), "sklearn", channels=("B", "A"), options=options)
    (mask,) = segmented(spec, Volume(others[1], geometry, "B"), Volume(others[0], geometry, "A"))
    # Then the columns are the ones it was trained on
    expected = tree.predict(whole_features(others, features, geometry)).reshape(mask.shape)
    np.testing.assert_array_equal(mask, expected == 1)


def test_a_class_is_a_label_also_where_labels_are_missing(tmp_path: Path) -> None:
    # Given classes 0, 3 and 7
    rows, labels = training(2)
    classifier = DecisionTreeClassifier(random_state=0).fit(rows, np.array([0, 3, 7])[labels])
    # When they are mapped to structures, then each structure is its class
    mapping = {"structure 0": 7, "structure 1": 3}
    spec = spec_of(dumped(tmp_path, classifier), "sklearn", 2, options={"mapping": mapping})
    seven, three = segmented(spec, levels(2))
    np.testing.assert_array_equal(seven.ravel(), labels == 2)
    np.testing.assert_array_equal(three.ravel(), labels == 1)
    # And also where scores are asked for: those without a class are nobody's
    options = {"mapping": mapping, "postprocessing": {"decision": "threshold"}, "ignored_outputs": "rest"}
    seven, three = segmented(spec_of(spec.artifact, "sklearn", 2, options=options), levels(2))
    np.testing.assert_array_equal(seven.ravel(), labels == 2)
    np.testing.assert_array_equal(three.ravel(), labels == 1)


@pytest.mark.parametrize("classes", [[False, True], [0.0, 1.0], np.array([0, 1], object)], ids=str)
def test_whole_numbers_of_any_kind_are_labels(classes: Any, tmp_path: Path) -> None:
    rows, labels = training(1)
    given = np.asarray(classes)[labels]
    classifier = KNeighborsClassifier(1).fit(rows, given.astype(int) if given.dtype == object else given)
    if given.dtype == object:
        classifier.classes_ = classifier.classes_.astype(object)
    (mask,) = segmented(spec_of(pickled(tmp_path, classifier), "sklearn", allow_pickle=True), levels(1))
    np.testing.assert_array_equal(mask.ravel(), labels == 1)


@pytest.mark.parametrize("threshold", [0.2, 0.8])
def test_a_threshold_is_over_probabilities(threshold: float, tmp_path: Path) -> None:
    classifier = forest(1)
    options = {"postprocessing": {"decision": "threshold", "threshold": threshold}, "ignored_outputs": [0]}
    (mask,) = segmented(spec_of(dumped(tmp_path, classifier), "sklearn", options=options), unseen(1))
    probability = classifier.predict_proba(whole_features([unseen(1)], FEATURES))[:, 1]
    np.testing.assert_array_equal(mask.ravel(), probability > threshold)
    assert np.any((probability > 0.2) & (probability <= 0.8))


def test_label_0_is_the_background_whatever_the_number_of_classes(tmp_path: Path) -> None:
    # Given a classifier of background and one structure, and a model that declares two
    spec = spec_of(dumped(tmp_path, forest(1)), "sklearn", 2)
    # When it segments, then the background is not drawn as the first of them
    with pytest.raises(ModelFailed, match=r"returned 2 outputs .* no output for structure 1\."):
        segmented(spec, levels(1))


def test_labels_can_be_asked_for(tmp_path: Path) -> None:
    options = {"postprocessing": {"decision": "labels"}}
    spec = replace(sklearn_skops(tmp_path, 2), options={"features": list(FEATURES)} | options)
    first, second = segmented(spec, levels(2))
    np.testing.assert_array_equal(first.ravel(), labels_of(levels(2)) == 1)
    np.testing.assert_array_equal(second.ravel(), labels_of(levels(2)) == 2)


def test_a_model_of_another_version_runs_and_says_so(tmp_path: Path) -> None:
    # Given a model that says another version of scikit-learn saved it
    classifier = forest(1)
    state = classifier.__getstate__()
    path = pickled(tmp_path, OfVersion(state, "1.5.2"))
    spec = spec_of(path, "sklearn", allow_pickle=True)
    # When it segments twice, then each run notes that
    model = loaded(spec)
    for _ in range(2):
        heard = Heard()
        (mask,) = segmented(spec, levels(1), model=model, heard=heard)
        np.testing.assert_array_equal(mask.ravel(), labels_of(levels(1)) == 1)
        (sentence,) = heard.notes
        assert sentence.startswith("The model was saved by scikit-learn 1.5.2 and runs on ")


class OfVersion:
    """Pickles as a forest that a given version saved."""

    def __init__(self, state: dict[str, Any], version: str) -> None:
        self.state = state | {"_sklearn_version": version}

    def __reduce__(self) -> tuple[Any, ...]:
        return RandomForestClassifier, (), self.state


@pytest.mark.parametrize("threads", ["1", "3"])
def test_rows_are_shared_out_among_threads(threads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a limit to the number of threads, and more rows than one takes
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    volume = np.tile(unseen(2), (4, 3, 2))
    classifier = forest(2)
    model: Any = loaded(spec_of(dumped(tmp_path, classifier), "sklearn", 2))
    rows = whole_features([volume], FEATURES)
    # When it is asked, then answers come in the order of the rows, from as many threads
    answer = model._predictor(rows)
    np.testing.assert_array_equal(answer, classifier.predict_proba(rows))
    assert len(model._predictor.pool._threads) == int(threads)
