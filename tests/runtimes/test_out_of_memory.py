"""Libraries that run out of memory get the same second chance as PyTorch: patch by patch, noted in the time line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from warnings import catch_warnings

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from services.core.errors import ModelFailed
from services.core.model_spec import ModelSpec
from services.worker.engine.devices import is_out_of_memory
from tests.runtimes import artifacts, artifacts_onnx, artifacts_tensorflow
from tests.runtimes.running import Heard, segmented

TOO_MUCH = 2**19
"""Squared, how many floats a graph asks for beside each patch of a batch but the first: a terabyte."""
BY_TWO: dict[str, Any] = {
    "call": "sliding_window",
    "inference": {"patch": [4, 4, 4], "overlap": 0.0, "batch": 2, "device": "cpu"},
}


def onnx_graph(folder: Path, patches_at_once: int) -> ModelSpec:
    """A graph that finds room for so many patches."""
    steps = [
        helper.make_node("Shape", ["image"], ["count"], start=0, end=1),
        helper.make_node("Constant", [], ["room"], value_ints=[patches_at_once]),
        helper.make_node("Sub", ["count", "room"], ["rest"]),
        helper.make_node("Constant", [], ["side"], value_ints=[TOO_MUCH]),
        helper.make_node("Mul", ["rest", "side"], ["rows"]),
        helper.make_node("Constant", [], ["none"], value_ints=[0]),
        helper.make_node("Max", ["rows", "none"], ["height"]),
        helper.make_node("Concat", ["height", "side"], ["shape"], axis=0),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", ["scores", "zero"], ["answer"]),
    ]
    model = artifacts_onnx.graph(artifacts_onnx.pass_through(1), after=steps, outputs=[("answer", TensorProto.FLOAT)])
    return artifacts_onnx.onnx_spec(artifacts_onnx.saved(folder, model), options=BY_TWO)


def saved_model(folder: Path, patches_at_once: int) -> ModelSpec:
    """The same as a SavedModel."""
    tf = artifacts_tensorflow.tensorflow()

    class Greedy(tf.Module):  # type: ignore[misc,name-defined]  # TensorFlow has no types
        @tf.function(input_signature=[tf.TensorSpec([None] * 4 + [1], tf.float32)])  # type: ignore[untyped-decorator]
        def serve(self, image: Any) -> Any:
            rows = tf.maximum(tf.shape(image, tf.int64)[0] - patches_at_once, 0) * TOO_MUCH
            return image + tf.reduce_sum(tf.fill([rows, TOO_MUCH], 0.0))

    model = Greedy()
    archive = artifacts_tensorflow.saved_model_zip(folder, model, signatures={"serving_default": model.serve})
    return artifacts_tensorflow.tensorflow_spec(archive, options=BY_TWO)


GREEDY = f"""
import torch


class Greedy(torch.nn.Module):
    def __init__(self, patches_at_once: int):
        super().__init__()
        self.patches_at_once = patches_at_once

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        rows = max(image.shape[0] - self.patches_at_once, 0) * {TOO_MUCH}
        return image + torch.ones([rows, {TOO_MUCH}]).sum()
"""


def whole_model(folder: Path, patches_at_once: int) -> ModelSpec:
    """The same in PyTorch, which has no type of its own for what the host's memory lacks."""
    source = artifacts.write_source(folder, GREEDY)
    with artifacts.imported(source) as module:
        torch.save(module.Greedy(patches_at_once), folder / "model.pt")
    return artifacts.spec_of(folder / "model.pt", source, allow_pickle=True, options=BY_TWO)


def torchscript(folder: Path, patches_at_once: int) -> ModelSpec:
    """The same as TorchScript, which has no type for a device's either."""
    with artifacts.imported(artifacts.write_source(folder, GREEDY)) as module, catch_warnings(action="ignore"):
        torch.jit.script(module.Greedy(patches_at_once)).save(str(folder / "script.pt"))
    return artifacts.spec_of(folder / "script.pt", options=BY_TWO)


ALL = [onnx_graph, saved_model, torchscript, whole_model]


@pytest.mark.parametrize("make", ALL)
def test_a_second_run_is_done_patch_by_patch(make: Callable[[Path, int], ModelSpec], tmp_path: Path) -> None:
    # Given a model that finds room for one patch at a time
    spec, heard = make(tmp_path, 1), Heard()
    voxels = np.arange(-256, 256, dtype=np.int16).reshape(8, 8, 8)
    # When it is called with two
    (mask,) = segmented(spec, voxels, heard=heard)
    # Then it gets them one after the other
    np.testing.assert_array_equal(mask, voxels > 0)
    assert [note.partition(";")[0] for note in heard.notes] == ["The device ran out of memory"]


@pytest.mark.parametrize("make", ALL)
def test_a_model_without_room_for_one_patch_says_so(make: Callable[[Path, int], ModelSpec], tmp_path: Path) -> None:
    with pytest.raises(ModelFailed, match="needs more memory than its device has, even one patch at a time"):
        segmented(make(tmp_path, 0), np.zeros((8, 8, 8), np.int16))


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 20.00 GiB",
        "CUDA error: out of memory",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_what_torch_and_the_libraries_below_it_say(said: str) -> None:
    assert is_out_of_memory(RuntimeError(said))


def test_other_errors_are_none_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"))
