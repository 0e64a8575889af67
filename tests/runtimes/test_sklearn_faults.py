"""Every way in which a scikit-learn model can be wrong has a message of its own, which says what to do."""

import json
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC

from services.core.errors import ModelFailed
from services.core.model_spec import ModelSpec
from services.worker.runtimes import sklearn_artifact
from tests.runtimes.artifacts import write_source
from tests.runtimes.artifacts_voxels import dumped, forest, pickled, sklearn_joblib, sklearn_skops, spec_of, training
from tests.runtimes.running import loaded, segmented

SCALER = """
from sklearn.base import BaseEstimator, TransformerMixin

class Halved(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self
    def transform(self, X):
        return X / 2
"""


def file_of(folder: Path, content: bytes) -> Path:
    path = folder / "model.artifact"
    path.write_bytes(content)
    return path


def half_of(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def rezipped(path: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """The zip with its members changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def with_member(name: str) -> Callable[[Path], ModelSpec]:
    def change(members: dict[str, bytes]) -> None:
        members[name] = b""

    return lambda folder: skops_of(rezipped(dumped(folder, forest()), change))


def with_schema(change: Callable[[Any], object]) -> Callable[[Path], ModelSpec]:
    def change_members(members: dict[str, bytes]) -> None:
        schema = json.loads(members["schema.json"])
        change(schema)
        members["schema.json"] = json.dumps(schema).encode()

    return lambda folder: skops_of(rezipped(dumped(folder, forest()), change_members))


def without_arrays(members: dict[str, bytes]) -> None:
    for name in [name for name in members if name.endswith(".npy")][:1]:
        del members[name]


def skops_of(path: Path | None, count: int = 1, **options: Any) -> ModelSpec:
    return spec_of(path, "sklearn", count, options=options)


def joblib_of(path: Path, module: Path | None = None) -> ModelSpec:
    name = None if module is None else module.stem
    return spec_of(path, "sklearn", allow_pickle=True, module=module, module_name=name)


def fitted(classes: Any) -> KNeighborsClassifier:
    rows, labels = training(1)
    return KNeighborsClassifier(1).fit(rows, np.asarray(classes)[labels])


def several_labels_at_once() -> RandomForestClassifier:
    rows, labels = training(1)
    return RandomForestClassifier(2, random_state=0).fit(rows, np.stack([labels, labels], axis=1))


def of_own_class(folder: Path) -> Path:
    """Pickled with a class of the user's, which is then no longer to be found."""
    module = ModuleType("halving")
    sys.modules["halving"] = module
    exec(SCALER, module.__dict__)
    path = pickled(folder, make_pipeline(module.Halved(), forest()))
    del sys.modules["halving"]
    return path


def of_another_version(folder: Path) -> Path:
    """As `sklearn.ensemble.forest` pickled before 0.24."""
    return file_of(folder, b"\x80\x04csklearn.ensemble.forest\nRandomForestClassifier\n.")


class Older:
    """Pickles as a forest of another version with a state that this one cannot have."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, ()


class Failing(RandomForestClassifier):  # type: ignore[misc]  # scikit-learn has no types
    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        raise ValueError("node array from the pickle has an incompatible dtype:\n- expected: many")


def _restored() -> Failing:
    model = Failing()
    model.__module__ = "sklearn.ensemble"  # only scikit-learn's own are checked for their version
    Failing.__module__ = "sklearn.ensemble"
    try:
        model.__setstate__({"_sklearn_version": "0.22"})
    finally:
        Failing.__module__ = __name__
    return model


def of_unknown_width() -> RandomForestClassifier:
    classifier = forest()
    del classifier.n_features_in_
    return classifier


BAD: dict[str, tuple[Callable[[Path], ModelSpec], str]] = {
    "no artifact": (lambda f: skops_of(None), r"no model file; attach one written by skops\.io\.dump"),
    "artifact is not there": (lambda f: skops_of(f / "gone"), r"cannot be read \(No such file.*attach it again"),
    "no structure": (lambda f: skops_of(dumped(f, forest()), 0), r"declares no structure"),
    "empty": (lambda f: skops_of(file_of(f, b"")), r"is empty; save the model again"),
    "a text": (lambda f: skops_of(file_of(f, b"hello, model")), r"is not a scikit-learn model; attach one written by"),
    "a short text": (lambda f: skops_of(file_of(f, b"x")), r"is not a scikit-learn model"),
    "truncated skops": (lambda f: skops_of(half_of(dumped(f, forest()))), r"is cut short; copy or save it again"),
    "truncated joblib": (lambda f: joblib_of(half_of(pickled(f, forest()))), r"is damaged, or of a version that"),
    "truncated, compressed": (
        lambda f: joblib_of(half_of(pickled(f, forest(), compress=3))),
        r"is damaged, or of a version that scikit-learn .* cannot open \(.*\); save it again",
    ),
    "zip of something else": (
        lambda f: skops_of(rezipped(dumped(f, forest()), lambda members: members.pop("schema.json"))),
        r"is a zip without schema\.json, so skops did not write it",
    ),
    "member points up": (with_member("../../evil.npy"), r"member named '\.\./\.\./evil\.npy', which points out of it"),
    "member is absolute": (with_member("/etc/evil"), r"member named '/etc/evil', which points out"),
    "member points up, as Windows does": (with_member("a\\..\\..\\evil"), r"which points out of it"),
    "array is missing": (
        lambda f: skops_of(rezipped(dumped(f, forest()), without_arrays)),
        r"is damaged, or of a version.*There is no item named",
    ),
    "schema is not JSON": (
        lambda f: skops_of(rezipped(dumped(f, forest()), lambda members: members.update({"schema.json": b"{"}))),
        r"is damaged, or of a version.*JSONDecodeError",
    ),
    "schema is something else": (
        lambda f: skops_of(rezipped(dumped(f, forest()), lambda members: members.update({"schema.json": b"[]"}))),
        r"is damaged, or of a version",
    ),
    "a newer skops": (
        with_schema(lambda schema: schema.update(protocol=99)),
        r"of a version that .* skops .* cannot open \(ValueError: .*protocol 99",
    ),
    "a type that is nobody's": (
        with_schema(lambda schema: schema.update(__class__="system", __module__="os")),
        r"holds os\.system, not scikit-learn's or numpy's own, which could run any code; leave it out",
    ),
    "a function of scikit-learn": (
        with_schema(lambda schema: schema.update(__class__="check_array", __module__="sklearn.utils.validation")),
        r"holds sklearn\.utils\.validation\.check_array, not",
    ),
    "of a part of scikit-learn that loads": (
        with_schema(lambda schema: schema.update(__class__="fetch_openml", __module__="sklearn.datasets._openml")),
        r"holds sklearn\.datasets\._openml\.fetch_openml, not",
    ),
    "a function of one's own": (
        lambda f: skops_of(dumped(f, make_pipeline(FunctionTransformer(half_of), forest()))),
        r"holds tests\.runtimes\.test_sklearn_faults\.half_of, not scikit-learn's",
    ),
    "a class of numpy that writes files": (
        with_schema(lambda schema: schema.update(__class__="memmap", __module__="numpy")),
        r"holds numpy\.memmap, not",
    ),
    "pickle not allowed": (
        lambda f: skops_of(pickled(f, forest())),
        r"attach it again with --allow-pickle if you trust it, or save it with skops\.io\.dump",
    ),
    "compressed pickle not allowed": (lambda f: skops_of(pickled(f, forest(), ("gzip", 3))), r"--allow-pickle"),
    "pickled, no module": (lambda f: joblib_of(of_own_class(f)), r"needs what is not here \(No module named 'halving'"),
    "pickled, other module": (
        lambda f: joblib_of(of_own_class(f), write_source(f, "Other = 1\n", "halving")),
        r"needs what is not here \(.*Halved.*attach the Python file",
    ),
    "pickled by an old scikit-learn": (
        lambda f: joblib_of(of_another_version(f)),
        r"'sklearn\.ensemble\.forest'\); if it is of scikit-learn, save the model again with scikit-learn",
    ),
    "of a version that cannot be opened": (
        lambda f: joblib_of(pickled(f, Older())),
        r"saved by scikit-learn 0\.22, and .* cannot open it \(ValueError: node array .*; save it again with",
    ),
    "a regressor": (
        lambda f: skops_of(dumped(f, LinearRegression().fit(*training(1)))),
        r"holds a LinearRegression, which is not a classifier; attach a fitted classifier",
    ),
    "a clustering": (lambda f: skops_of(dumped(f, KMeans(2).fit(training(1)[0]))), r"a KMeans, which is not"),
    "a pipeline without a classifier": (
        lambda f: skops_of(dumped(f, make_pipeline(StandardScaler()))),
        r"holds a Pipeline, which is not a classifier",
    ),
    "a dict": (lambda f: skops_of(dumped(f, {"model": forest()})), r"holds a dict, which is not a classifier"),
    "a class": (lambda f: joblib_of(pickled(f, RandomForestClassifier)), r"which is not a classifier"),
    "not fitted": (lambda f: skops_of(dumped(f, RandomForestClassifier())), r"was not fitted before it was saved"),
    "names": (
        lambda f: skops_of(dumped(f, fitted(["air", "bone"]))),
        r"classes are air, bone, which are not whole numbers; train it with the labels themselves",
    ),
    "fractions": (lambda f: skops_of(dumped(f, fitted(["0.5", "1.5"]))), r"are 0\.5, 1\.5, which are not whole"),
    "below zero": (lambda f: skops_of(dumped(f, fitted([-1, 1]))), r"classes are -1, 1; labels have to lie in 0 to"),
    "large": (lambda f: skops_of(dumped(f, fitted([0, 10**6]))), r"classes are 0, 1000000; labels have to"),
    "several labels at once": (
        lambda f: skops_of(dumped(f, several_labels_at_once())),
        r"gives a voxel several labels at once; train one",
    ),
    "wrong number of features": (
        lambda f: skops_of(dumped(f, forest()), features=["intensity", "position"]),
        r"trained on 3 features, but the option features gives it 4 \(intensity, x, y, z\); declare those",
    ),
    "wrong number of channels": (
        lambda f: spec_of(dumped(f, forest()), "sklearn", channels=("CT", "PET")),
        r"trained on 3 features, but .* 6 \(CT intensity, CT gaussian:1, CT maximum:2, PET intensity, .*PET maximum:2",
    ),
    "unknown number of features, and wrong": (
        lambda f: skops_of(dumped(f, of_unknown_width()), features=["intensity", "position"]),
        r"cannot predict from 4 features \(ValueError: X has 4 .* is expecting 3 .*; declare the features it",
    ),
    "no features": (lambda f: ModelSpec("m", "sklearn", dumped(f, forest())), r"call: voxels needs features"),
    "another call": (
        lambda f: skops_of(dumped(f, forest()), call="tensor", features=[]),
        r"the sklearn runtime has no call tensor; there is voxels",
    ),
    "scores of one without": (
        lambda f: skops_of(
            dumped(f, LinearSVC().fit(training(1)[0] / 1000, training(1)[1])), postprocessing={"decision": "argmax"}
        ),
        r"gives labels and no scores, and postprocessing\.decision is argmax; leave it out",
    ),
    "on a GPU": (
        lambda f: skops_of(dumped(f, forest()), inference={"device": "cuda:0"}),
        r"computes on the CPU only, and inference\.device is 'cuda:0'; set it to auto or cpu",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_model_is_refused_with_its_own_message(case: str, tmp_path: Path) -> None:
    make, message = BAD[case]
    spec = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ModelFailed, match=message) as failure:
        loaded(spec)
    assert failure.value.details.endswith(".")
    assert "\n" not in failure.value.details
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("limit", "value"), [("MOST_BYTES", 2000), ("MOST_MEMBERS", 5)])
def test_a_zip_that_unpacks_to_too_much_is_refused(
    limit: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = sklearn_skops(tmp_path)
    monkeypatch.setattr(sklearn_artifact, limit, value)
    with pytest.raises(ModelFailed, match=r"unpacks to \d+ members of \d+ MiB, over the limit of"):
        loaded(spec)


class Trap:
    """Pickles into a call that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("compress", [0, 3, ("xz", 3)])
def test_a_refused_pickle_has_not_run(compress: Any, tmp_path: Path) -> None:
    # Given a model file that runs code when it is unpickled, and a module that does when it is imported
    path = pickled(tmp_path, Trap(tmp_path / "mark"), compress)
    source = write_source(tmp_path, f"open({str(tmp_path / 'other mark')!r}, 'w').close()\n")
    # When it is loaded without leave to unpickle, then neither has run
    with pytest.raises(ModelFailed, match="--allow-pickle"):
        loaded(spec_of(path, "sklearn", module=source, module_name="unet"))
    assert not list(tmp_path.glob("*mark"))


def test_a_class_of_ones_own_is_found_in_the_module(tmp_path: Path) -> None:
    spec = joblib_of(of_own_class(tmp_path), write_source(tmp_path, SCALER, "halving"))
    (mask,) = segmented(spec, np.full((4, 5, 6), 80, np.int16))
    assert mask.all()  # 40, halved


def test_a_plain_pickle_is_a_pickle(tmp_path: Path) -> None:
    spec = sklearn_joblib(tmp_path)
    assert spec.artifact is not None
    spec.artifact.write_bytes(pickle.dumps(forest()))
    (mask,) = segmented(spec, np.full((4, 5, 6), 40, np.int16))
    assert mask.all()
