"""Networks exported by a library answer in the server as that library itself does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from numpy.typing import NDArray
from onnx import TensorProto, helper

from services.core.errors import ModelFailed
from services.core.model_spec import ModelSpec
from tests.runtimes import artifacts_onnx, artifacts_tensorflow
from tests.runtimes.artifacts import imported, spec_of, write_source
from tests.runtimes.artifacts_onnx import graph, onnx_spec
from tests.runtimes.artifacts_tensorflow import keras_network, tensorflow_module, tensorflow_spec
from tests.runtimes.network_cases import CASES, KERNEL, PATCH, SHAPE, Floats, onnx_network, tensorflow_network
from tests.runtimes.running import Heard, segmented

REST = {"ignored_outputs": "rest"}
"""Deep supervision beside outputs that are named for the structures."""


def volumes() -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    random = np.random.default_rng(5)
    return random.integers(-90, 90, SHAPE, np.int16), random.integers(-90, 90, SHAPE, np.int16)


def spec(runtime: str, artifact: Path, options: dict[str, Any], structures: int = 3) -> ModelSpec:
    return spec_of(artifact, count=structures, runtime=runtime, channels=("CT", "MR"), options=options)


def check(masks: Sequence[NDArray[np.bool_]], scores: Floats) -> None:
    """That the masks are the greatest of `scores` (outputs, depth, height, width), the first being the background.

    Two libraries round differently: where two scores are that near to each other, either may win.
    """
    least, greatest = np.sort(scores, axis=0)[-2:]
    decided = greatest - least > 1e-3
    assert decided.mean() > 0.99
    labels = scores.argmax(axis=0)
    for index, mask in enumerate(masks):
        assert mask.any()
        np.testing.assert_array_equal(mask[decided], (labels == index + 1)[decided])


@pytest.mark.parametrize("case", CASES)
def test_a_whole_volume_is_answered_as_by_the_library_itself(case: str, tmp_path: Path) -> None:
    # Given a network of two channels, three structures and background
    runtime, make = CASES[case]
    artifact, network = make(tmp_path)
    given = volumes()
    # When the server runs it on the whole volume, then it decides as the scores of the library itself say
    masks = segmented(spec(runtime, artifact, {"call": "tensor"}), *given)
    check(masks, network(np.stack(given)[None].astype(np.float32))[0])


@pytest.mark.parametrize("case", CASES)
def test_patches_are_answered_as_by_the_library_itself(case: str, tmp_path: Path) -> None:
    # Given the same, and MONAI's sliding window around the library itself
    runtime, make = CASES[case]
    artifact, network = make(tmp_path)
    given = volumes()
    expected = sliding_window_inference(
        torch.from_numpy(np.stack(given)[None].astype(np.float32)),
        PATCH,
        1,
        lambda patch: torch.from_numpy(np.ascontiguousarray(network(patch.numpy()))),
        overlap=0.25,
        mode="gaussian",
    )
    # When the server runs it by patches, three at a time, so that the last batch is smaller
    options = {"call": "sliding_window", "inference": {"patch": PATCH, "batch": 3}}
    masks = segmented(spec(runtime, artifact, options), *given)
    # Then it is the same
    assert isinstance(expected, torch.Tensor)
    check(masks, expected.numpy()[0])


@pytest.mark.parametrize("case", CASES)
def test_flips_are_averaged(case: str, tmp_path: Path) -> None:
    # Given a network that is called on flipped volumes, too, whose memory runs backwards
    runtime, make = CASES[case]
    artifact, network = make(tmp_path)
    given = volumes()
    # When it is run with one flip, then the mean of both answers counts
    masks = segmented(spec(runtime, artifact, {"call": "tensor", "inference": {"flips": ["height"]}}), *given)
    batch = np.stack(given)[None].astype(np.float32)
    turned = np.flip(network(np.ascontiguousarray(np.flip(batch, -2))), -2)
    check(masks, (network(batch)[0] + turned[0]) / 2)


def test_a_graph_of_fixed_size_runs_by_patches(tmp_path: Path) -> None:
    # Given graphs that take one patch of one size
    given = volumes()
    free = artifacts_onnx.saved(tmp_path, graph(KERNEL), "free.onnx")
    fixed = artifacts_onnx.saved(tmp_path, graph(KERNEL, batch=1, spatial=PATCH), "fixed.onnx")
    options = {"call": "sliding_window", "inference": {"patch": PATCH}}
    # When both segment, then the masks are the same
    for one, other in zip(*(segmented(spec("onnx", path, options), *given) for path in (free, fixed)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_half_precision_graphs_get_half_precision(tmp_path: Path) -> None:
    path = artifacts_onnx.saved(tmp_path, graph(KERNEL, element=TensorProto.FLOAT16))
    given = volumes()
    masks = segmented(spec("onnx", path, {"call": "tensor"}), *given)
    expected = onnx_network(path)(np.stack(given)[None].astype(np.float16))
    labels = expected[0].argmax(axis=0)
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(mask, labels == index + 1)


def test_outputs_named_for_structures_are_theirs(tmp_path: Path) -> None:
    # Given a graph of three outputs, two with the names of the structures, in another order
    nodes = [
        helper.make_node("Relu", ["scores"], ["1"]),
        helper.make_node("Neg", ["scores"], ["structure 0"]),
    ]
    outputs = [("scores", TensorProto.FLOAT), ("1", TensorProto.FLOAT), ("structure 0", TensorProto.FLOAT)]
    kernel = artifacts_onnx.pass_through(1)
    path = artifacts_onnx.saved(tmp_path, graph(kernel, after=nodes, outputs=outputs))
    # When the model segments, then each structure is the output of its ID or name
    volume, _ = volumes()
    first, second = segmented(onnx_spec(path, 2, options=REST), volume)
    np.testing.assert_array_equal(first, volume < 0)
    np.testing.assert_array_equal(second, volume > 0)


def test_the_first_of_several_outputs_is_the_answer_and_said_to_be(tmp_path: Path) -> None:
    outputs = [("scores", TensorProto.FLOAT), ("deep", TensorProto.FLOAT)]
    after = [helper.make_node("Neg", ["scores"], ["deep"])]
    path = artifacts_onnx.saved(tmp_path, graph(artifacts_onnx.pass_through(1), after=after, outputs=outputs))
    volume, _ = volumes()
    heard = Heard()
    (mask,) = segmented(onnx_spec(path), volume, heard=heard)
    np.testing.assert_array_equal(mask, volume > 0)
    assert heard.notes == [
        "The model's output 'scores' is its answer, and 'deep' is ignored: none has the name of a structure (structure "
        "0)."
    ]


@pytest.mark.parametrize("kind", ["keras", "SavedModel"])
def test_the_first_of_several_layers_is_the_answer_and_said_to_be(kind: str, tmp_path: Path) -> None:
    # Given a model that returns a list, as for deep supervision
    keras = artifacts_tensorflow.keras()
    image = keras.Input((*artifacts_tensorflow.FREE, 1), name="image")
    layers = [keras.layers.Rescaling(sign, name=name)(image) for name, sign in (("a", 1.0), ("b", -1.0), ("c", 0.0))]
    model = keras.Model(image, layers)
    if kind == "keras":
        path, first, others = artifacts_tensorflow.saved(tmp_path, model), "'a'", "'b', 'c'"
    else:
        model.export(tmp_path / "apart" / "network", verbose=False)
        path, first, others = artifacts_tensorflow.zip_of(tmp_path), "'output_0'", "'output_1', 'output_2'"
    # When it segments, then the first is its answer, and the run says so
    volume, _ = volumes()
    heard = Heard()
    (mask,) = segmented(tensorflow_spec(path), volume, heard=heard)
    np.testing.assert_array_equal(mask, volume > 0.5)
    (note,) = heard.notes
    assert f"output {first} is its answer, and {others} are ignored" in note


@pytest.mark.parametrize("element", [TensorProto.BOOL, TensorProto.INT64, TensorProto.UINT8])
def test_labels_and_masks_of_any_type_are_understood(element: int, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Greater", ["scores", "zero"], ["positive"]),
        helper.make_node("Cast", ["positive"], ["labels"], to=element),
    ]
    model = graph(artifacts_onnx.pass_through(1), after=nodes, outputs=[("labels", element)])
    model.graph.initializer.append(helper.make_tensor("zero", TensorProto.FLOAT, [], [0]))
    volume, _ = volumes()
    (mask,) = segmented(onnx_spec(artifacts_onnx.saved(tmp_path, model)), volume)
    np.testing.assert_array_equal(mask, volume > 0)


def test_several_outputs_of_keras_are_named_by_their_layers(tmp_path: Path) -> None:
    # Given a model of two outputs whose layers are called as the structures are
    keras = artifacts_tensorflow.keras()
    image = keras.Input((*artifacts_tensorflow.FREE, 1), name="image")
    positive = keras.layers.ReLU(name="1")(image)
    negative = keras.layers.Rescaling(-1.0, name="0")(image)
    path = artifacts_tensorflow.saved(tmp_path, keras.Model(image, [positive, negative]))
    # When it segments, then each structure is the output of its ID
    volume, _ = volumes()
    first, second = segmented(tensorflow_spec(path, count=2), volume)
    np.testing.assert_array_equal(first, volume < 0)
    np.testing.assert_array_equal(second, volume > 0)


@pytest.mark.parametrize("kind", ["keras", "SavedModel"])
def test_a_dict_named_for_structures_is_theirs(kind: str, tmp_path: Path) -> None:
    # Given a model that returns a dict, one entry more than there are structures
    keras = artifacts_tensorflow.keras()
    image = keras.Input((*artifacts_tensorflow.FREE, 1), name="image")
    scores = {"deep": image, "structure 1": keras.layers.ReLU()(image), "0": keras.layers.Rescaling(-1.0)(image)}
    model = keras.Model(image, scores)
    if kind == "keras":
        path = artifacts_tensorflow.saved(tmp_path, model)
    else:
        model.export(tmp_path / "apart" / "network", verbose=False)
        path = artifacts_tensorflow.zip_of(tmp_path)
    # When it segments, then each structure is the entry of its ID or name
    volume, _ = volumes()
    heard = Heard()
    first, second = segmented(tensorflow_spec(path, count=2, options=REST), volume, heard=heard)
    assert heard.notes == []
    # But only where that entry is said to be nobody's
    with pytest.raises(
        ModelFailed, match=r"'structure 0' \(0\), 'structure 1' \(structure 1\), and output 'deep' with"
    ):
        segmented(tensorflow_spec(path, count=2), volume)
    np.testing.assert_array_equal(first, volume < 0)
    np.testing.assert_array_equal(second, volume > 0)


def test_a_label_map_of_keras_needs_no_channels(tmp_path: Path) -> None:
    keras = artifacts_tensorflow.keras()
    model = keras_network(KERNEL[:, :1])
    labels = keras.ops.argmax(model.outputs[0], axis=-1)
    path = artifacts_tensorflow.saved(tmp_path, keras.Model(model.inputs, labels))
    volume, _ = volumes()
    masks = segmented(tensorflow_spec(path, count=3), volume)
    scores = tensorflow_network(model)(volume[None, None].astype(np.float32))[0]
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(mask, scores.argmax(axis=0) == index + 1)


def test_a_saved_model_without_signature_is_called_itself(tmp_path: Path) -> None:
    # Given an object with two functions, so that TensorFlow makes neither its signature
    tf = artifacts_tensorflow.tensorflow()
    module = tensorflow_module(KERNEL)
    module.other = tf.function(lambda x: x, input_signature=[tf.TensorSpec((None,), tf.float32)])
    path = artifacts_tensorflow.saved_model_zip(tmp_path, module)
    assert "serving_default" not in tf.saved_model.load(str(tmp_path / "apart" / "network")).signatures
    # When it segments, then it is called
    given = volumes()
    masks = segmented(spec("tensorflow", path, {"call": "tensor"}), *given)
    check(masks, tensorflow_network(module)(np.stack(given)[None].astype(np.float32))[0])


def test_a_layer_of_ones_own_comes_with_its_module(tmp_path: Path) -> None:
    # Given a model with a layer of a class that its user wrote
    source = write_source(
        tmp_path,
        "import keras\n\nclass Above(keras.layers.Layer):\n"
        "    def call(self, image):\n        return keras.ops.cast(image > 7, 'float32')\n",
    )
    keras = artifacts_tensorflow.keras()
    with imported(source) as module:
        path = artifacts_tensorflow.saved(
            tmp_path, keras.Sequential([keras.Input((*artifacts_tensorflow.FREE, 1)), module.Above()])
        )
    # When it is attached with that Python file, then it runs
    volume, _ = volumes()
    (mask,) = segmented(tensorflow_spec(path, source), volume)
    np.testing.assert_array_equal(mask, volume > 7)
