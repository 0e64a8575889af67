"""Every way in which a TensorFlow or Keras model can be wrong has a message of its own, which says what to do."""

import io
import warnings
import zipfile
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from services.core.errors import ModelFailed
from services.core.model_spec import ModelSpec
from services.worker.runtimes import runtime
from tests.runtimes.artifacts import imported, write_source
from tests.runtimes.artifacts_onnx import graph, pass_through
from tests.runtimes.artifacts_tensorflow import (
    FREE,
    keras,
    keras_file,
    keras_network,
    saved,
    saved_model,
    saved_model_zip,
    tensorflow,
    tensorflow_module,
    tensorflow_spec,
)
from tests.runtimes.running import segmented

VOLUME = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)

KERNEL = pass_through(1)

OWN_LAYER = "import keras\n\nclass Own(keras.layers.Layer):\n    def call(self, image):\n        return image\n"

Make = Callable[[Path], ModelSpec]


def file_of(folder: Path, content: bytes, name: str = "model.keras") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def half_of(path: Path | None) -> Path:
    assert path is not None
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def zip_with(folder: Path, **members: bytes) -> Path:
    path = folder / "members.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def without(path: Path | None, part: str) -> Path:
    """The zip without the members that have `part` in their names."""
    assert path is not None
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if part not in name}
    return zip_with(path.parent, **members)


def kerasfile(folder: Path, model: Any, **fields: Any) -> ModelSpec:
    return tensorflow_spec(saved(folder, model), **fields)


def torch_file(folder: Path) -> ModelSpec:
    torch.save({"bias": torch.zeros(1)}, folder / "model.pt")
    return tensorflow_spec(folder / "model.pt")


def lambda_model() -> Any:
    layers = keras().layers
    return keras().Sequential([keras().Input((*FREE, 1)), layers.Lambda(lambda image: image * 2)])


def own_layer(folder: Path, name: str) -> ModelSpec:
    with imported(write_source(folder, OWN_LAYER, "own")) as module:
        model = keras().Sequential([keras().Input((*FREE, 1)), module.Own()])
        return tensorflow_spec(saved(folder, model, name))


def weights_only(folder: Path) -> ModelSpec:
    with warnings.catch_warnings(action="ignore"):
        keras_network(KERNEL).save_weights(folder / "model.weights.h5")
    return tensorflow_spec(folder / "model.weights.h5")


def linking_h5(folder: Path) -> ModelSpec:
    """A .h5 whose weights are bytes of another file of the machine."""
    path = saved(folder, keras_network(KERNEL), "model.h5")
    with h5py.File(path, "r+") as file:
        link_weights(file, file_of(folder, bytes(4), "secret"))
    return tensorflow_spec(path)


def linking_keras(folder: Path) -> ModelSpec:
    path = saved(folder, keras_network(KERNEL))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        link_weights(file, file_of(folder, bytes(4), "secret"))
    return tensorflow_spec(zip_with(folder, **members | {"model.weights.h5": weights.getvalue()}))


def link_weights(file: Any, secret: Path) -> None:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    [name] = [name for name in names if file[name].shape == (1, 1, 1, 1, 1)]
    parent, _, last = name.rpartition("/")
    del file[name]
    file[parent].create_dataset(last, (1, 1, 1, 1, 1), np.float32, external=[(str(secret), 0, 4)])


def two_inputs() -> Any:
    image, age = keras().Input((*FREE, 1), name="image"), keras().Input((1,), name="age")
    return keras().Model([image, age], image)


def two_signature_inputs() -> Any:
    tf = tensorflow()
    module = tensorflow_module(KERNEL)
    specs = [tf.TensorSpec((None, *FREE, 1), name="image"), tf.TensorSpec((1,), name="age")]
    signature = tf.function(lambda image, age: image + age, input_signature=specs)
    return module, signature


def two_input_saved_model(folder: Path) -> ModelSpec:
    module, signature = two_signature_inputs()
    module.function = signature
    return tensorflow_spec(saved_model_zip(folder, module, signatures=signature))


def unordered_outputs(folder: Path) -> ModelSpec:
    tf = tensorflow()
    module = tf.Module()
    spec = tf.TensorSpec((None, *FREE, 1))
    module.infer = tf.function(lambda x: {"scores": x, "deep": x}, input_signature=[spec])
    return tensorflow_spec(saved_model_zip(folder, module, signatures=module.infer))


def other_signature(folder: Path) -> ModelSpec:
    tf = tensorflow()
    module = tf.Module()
    module.infer = tf.function(lambda x: x, input_signature=[tf.TensorSpec((None, *FREE, 1))])
    return tensorflow_spec(saved_model_zip(folder, module, signatures={"infer": module.infer}))


def module_of(folder: Path, shape: tuple[int | None, ...] | None, channels: int = 1, **fields: Any) -> ModelSpec:
    return tensorflow_spec(saved_model_zip(folder, tensorflow_module(pass_through(1, channels), shape)), **fields)


def signature_of(folder: Path, shape: tuple[int | None, ...] | None, dtype: str = "float32") -> ModelSpec:
    tf = tensorflow()
    module = tf.Module()
    module.infer = tf.function(lambda x: x, input_signature=[tf.TensorSpec(shape, dtype, name="image")])
    return tensorflow_spec(saved_model_zip(folder, module, signatures=module.infer))


def two_saved_models(folder: Path) -> ModelSpec:
    saved_model_zip(folder, tensorflow_module(KERNEL), top="one")
    return tensorflow_spec(saved_model_zip(folder, tensorflow_module(KERNEL), top="two"))


BAD: dict[str, tuple[Make, str]] = {
    "no artifact": (lambda f: tensorflow_spec(None), r"no model file; attach a \.keras or \.h5 file"),
    "artifact is not there": (lambda f: tensorflow_spec(f / "gone"), r"cannot be read \(No such file.*attach it again"),
    "no structure": (lambda f: kerasfile(f, keras_network(KERNEL), count=0), r"declares no structure"),
    "empty": (lambda f: tensorflow_spec(file_of(f, b"")), r"is empty; save the model again"),
    "a text": (lambda f: tensorflow_spec(file_of(f, b"hello, model")), r"is not a TensorFlow or Keras model; attach"),
    "an ONNX graph": (lambda f: tensorflow_spec(file_of(f, graph(KERNEL).SerializeToString())), r"is not a TensorFlow"),
    "a PyTorch file": (
        torch_file,
        r"zip holds neither a SavedModel .* nor what a \.keras file does; attach",
    ),
    "keras, truncated": (lambda f: tensorflow_spec(half_of(keras_file(f).artifact)), r"is cut short; copy or pack"),
    "h5, truncated": (
        lambda f: tensorflow_spec(half_of(saved(f, keras_network(KERNEL), "model.h5"))),
        r"damaged or no model of this version of Keras \(OSError: .*truncated",
    ),
    "SavedModel, truncated": (lambda f: tensorflow_spec(half_of(saved_model(f).artifact)), r"is cut short; copy or"),
    "SavedModel without its graph": (
        lambda f: tensorflow_spec(without(saved_model(f).artifact, "saved_model.pb")),
        r"neither a SavedModel \(saved_model\.pb and its folders\)",
    ),
    "SavedModel without its variables": (
        lambda f: tensorflow_spec(without(saved_model(f).artifact, "variables.data")),
        r"SavedModel is damaged or not complete \(.*; save it again and pack the whole folder",
    ),
    "SavedModel that is a text": (
        lambda f: tensorflow_spec(zip_with(f, **{"saved_model.pb": b"hello"})),
        r"SavedModel is damaged or not complete",
    ),
    "two SavedModels": (two_saved_models, r"holds 2 SavedModels; pack the one"),
    "zip that escapes": (
        lambda f: tensorflow_spec(zip_with(f, **{"../saved_model.pb": b"x"})),
        r"would be written outside the model's folder",
    ),
    "keras whose configuration is a text": (
        lambda f: tensorflow_spec(
            zip_with(f, **{"config.json": b"hello", "model.weights.h5": b"", "metadata.json": b"{}"})
        ),
        r"damaged or no model of this version of Keras",
    ),
    "keras without weights": (
        lambda f: tensorflow_spec(without(keras_file(f).artifact, "weights")),
        r"neither a SavedModel .* nor what a \.keras file does",
    ),
    "weights only": (weights_only, r"holds weights only; save the whole model by model\.save"),
    "lambda in keras": (lambda f: kerasfile(f, lambda_model()), r"holds Python code, a Lambda.*--allow-pickle if you"),
    "lambda in h5": (lambda f: tensorflow_spec(saved(f, lambda_model(), "model.h5")), r"holds Python code, a Lambda"),
    "another file's bytes in h5": (linking_h5, r"damaged or no model of this version of Keras \(.*xternal"),
    "another file's bytes in keras": (linking_keras, r"damaged or no model of this version of Keras \(.*xternal"),
    "a class of its own in keras": (lambda f: own_layer(f, "m.keras"), r"needs a class.*Own.*attach the Python file"),
    "a class of its own in h5": (lambda f: own_layer(f, "m.h5"), r"needs a class.*Own.*attach the Python file"),
    "two inputs": (lambda f: kerasfile(f, two_inputs()), r"has 2 inputs \(image, age\); save it with one"),
    "two inputs of a SavedModel": (two_input_saved_model, r"has 2 inputs \(age, image\); save it with one"),
    "outputs of any name": (unordered_outputs, r"has the outputs deep, scores, and which is the answer cannot be told"),
    "no signature to be used": (
        other_signature,
        r"no signature serving_default \(it has infer\).*save it with",
    ),
    "of images": (
        lambda f: kerasfile(f, keras().Sequential([keras().Input((None, None, 1)), keras().layers.ReLU()])),
        r"has 4 axes; it has to have the five \(patches, depth, height, width, channels\)",
    ),
    "SavedModel of images": (lambda f: signature_of(f, (None, None, None, 1)), r"'image' has 4 axes"),
    "SavedModel of anything": (lambda f: signature_of(f, None), r"'image' says nothing of its axes; save it with"),
    "SavedModel of bytes": (
        lambda f: signature_of(f, (None, *FREE, 1), "uint8"),
        r"'image' is of uint8; save",
    ),
    "two channels for one": (
        lambda f: kerasfile(f, keras_network(pass_through(1, 2))),
        r"'image' has 2 channels on its last axis, but the model version has 1 input channel",
    ),
    "two channels of a SavedModel": (
        lambda f: module_of(f, None, 2),
        r"'image' has 2 channels on its last axis",
    ),
    "fixed sizes": (
        lambda f: kerasfile(f, keras_network(KERNEL, spatial=(6, 8, 10))),
        r"fixed size \[6, 8, 10\].*sliding_window with inference\.patch \[6, 8, 10\]",
    ),
    "another patch": (
        lambda f: module_of(
            f, (None, 6, 8, 12, 1), options={"call": "sliding_window", "inference": {"patch": [6, 8, 10]}}
        ),
        r"fixed size \[6, 8, 12\], but inference\.patch is \[6, 8, 10\]; set inference\.patch",
    ),
    "fixed batch": (lambda f: kerasfile(f, keras_network(KERNEL, batch=4)), r"takes exactly 4 patches at a time"),
    "another precision": (
        lambda f: kerasfile(f, keras_network(KERNEL), options={"inference": {"precision": "bfloat16"}}),
        r"inference\.precision cannot be bfloat16; export the model in that precision",
    ),
    "another precision of a SavedModel": (
        lambda f: module_of(f, None, options={"inference": {"precision": "float16"}}),
        r"inference\.precision cannot be float16",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_model_is_refused_with_its_own_message(case: str, tmp_path: Path) -> None:
    make, message = BAD[case]
    with pytest.raises(ModelFailed, match=message) as failure:
        runtime("tensorflow").load(make(tmp_path))
    assert failure.value.details.endswith(".")
    assert "\n" not in failure.value.details


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("make", [keras_file, saved_model])
def test_cuda_without_cuda_is_an_error(make: Callable[[Path], ModelSpec], tmp_path: Path) -> None:
    spec = tensorflow_spec(make(tmp_path).artifact, options={"inference": {"device": "cuda"}})
    with pytest.raises(ModelFailed, match=r"sees no GPU, so it cannot use the device 'cuda'; install tensorflow\["):
        runtime("tensorflow").load(spec)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_gpu_that_the_worker_has_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` means the worker's GPU, as PyTorch sees it; the CPU in its place would be many times slower, unnoticed."""
    monkeypatch.setattr("services.worker.runtimes.tensorflow_tensors.device_of", lambda _: torch.device("cuda:0"))
    with pytest.raises(ModelFailed, match=r"sees no GPU.*'cuda:0'.*or set the option inference\.device to cpu"):
        runtime("tensorflow").load(saved_model(tmp_path))


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_lambda_runs_when_it_is_allowed(name: str, tmp_path: Path) -> None:
    spec = tensorflow_spec(saved(tmp_path, lambda_model(), name), allow_pickle=True)
    (mask,) = segmented(spec, VOLUME)
    np.testing.assert_array_equal(mask, VOLUME > 0)


def test_an_answer_of_another_shape_is_refused(tmp_path: Path) -> None:
    model = keras().Sequential([keras().Input((*FREE, 1)), keras().layers.MaxPooling3D(2)])
    with pytest.raises(ModelFailed, match=r"shape \(1, 1, 1, 1, 2\); expected \(1, outputs, 2, 3, 4\)"):
        segmented(kerasfile(tmp_path, model), VOLUME)


def test_a_dict_of_keras_that_names_no_structure_is_refused(tmp_path: Path) -> None:
    image = keras().Input((*FREE, 1))
    relu = keras().layers.ReLU()(image)
    model = keras().Model(image, {"scores": relu, "deep": relu})
    with pytest.raises(ModelFailed, match=r"no mask for structure 0 and masks for .*; its dict has to have exactly"):
        segmented(kerasfile(tmp_path, model), VOLUME)


def test_an_output_too_few_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFailed, match=r"1 output for .*no output for structure 1, structure 2"):
        segmented(kerasfile(tmp_path, keras_network(KERNEL), count=3), VOLUME)


@pytest.mark.parametrize("make", [keras_file, saved_model])
def test_a_loaded_model_leaves_nothing_in_the_scratch_folder(
    make: Callable[[Path], ModelSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    spec = make(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    model = runtime("tensorflow").load(spec)
    assert list(scratch.iterdir()) == []
    (mask,) = segmented(spec, VOLUME, model=model)
    np.testing.assert_array_equal(mask, VOLUME > 0)


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        ({"tensorflow"}, False),
        ({"tensorflow", "keras"}, True),
        ({"tensorflow", "torch"}, True),
    ],
)
def test_what_is_missing_is_said_as_far_as_it_can_be_known(
    absent: set[str], said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an environment without some of the libraries: Keras files run on PyTorch, too
    real = util.find_spec
    monkeypatch.setattr(
        "services.worker.runtimes.tensorflow.find_spec", lambda name: None if name in absent else real(name)
    )
    # When asked, then only what nothing could run on is missing
    missing = runtime("tensorflow").missing()
    assert (missing is not None) == said
    assert missing is None or "pip install 'segint[tensorflow]'" in missing
