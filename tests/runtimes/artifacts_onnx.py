"""Writes ONNX graphs as exporters do. Needs onnx, not torch."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from services.core.model_spec import ModelSpec
from tests.runtimes.artifacts import spec_of

FREE: tuple[int | str, int | str, int | str] = ("depth", "height", "width")
OPSET, IR_VERSION = 17, 8


def weights(outputs: int, channels: int = 1) -> NDArray[np.float32]:
    """Of a 3×3×3 convolution: whatever, but the same each time."""
    values = np.random.default_rng(outputs * 10 + channels).normal(size=(outputs, channels, 3, 3, 3))
    return (values / 10).astype(np.float32)


def pass_through(outputs: int, channels: int = 1) -> NDArray[np.float32]:
    """Of a 1×1×1 convolution: each output is the first channel."""
    kernel = np.zeros((outputs, channels, 1, 1, 1), np.float32)
    kernel[:, 0] = 1
    return kernel


def graph(
    kernel: NDArray[np.float32],
    *,
    batch: int | str = "patches",
    channels: int | str | None = None,
    spatial: Sequence[int | str] = FREE,
    element: int = TensorProto.FLOAT,
    after: Sequence[onnx.NodeProto] = (),
    outputs: Sequence[tuple[str, int]] | None = None,
) -> onnx.ModelProto:
    """image → convolution → scores; what `after` makes of `scores` are other outputs, by name and element type."""
    channels = kernel.shape[1] if channels is None else channels
    pads = [length // 2 for length in kernel.shape[2:]] * 2
    dtype = helper.tensor_dtype_to_np_dtype(element)
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("Conv", ["image", "kernel"], ["scores"], pads=pads), *after],
            "network",
            [helper.make_tensor_value_info("image", element, [batch, channels, *spatial])],
            [
                helper.make_tensor_value_info(name, its, None)
                for name, its in ([("scores", element)] if outputs is None else outputs)
            ],
            [numpy_helper.from_array(kernel.astype(dtype), "kernel")],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )


def onnx_spec(artifact: Path | None, count: int = 1, **fields: Any) -> ModelSpec:
    return spec_of(artifact, None, count, runtime="onnx", **fields)


def saved(folder: Path, model: onnx.ModelProto, name: str = "model.onnx") -> Path:
    onnx.save(model, folder / name)
    return folder / name


def plain(folder: Path, count: int = 1) -> ModelSpec:
    return onnx_spec(saved(folder, graph(pass_through(count))), count)


def external(folder: Path, count: int = 1) -> ModelSpec:
    return onnx_spec(external_zip(folder, graph(pass_through(count))), count)


def external_zip(folder: Path, model: onnx.ModelProto, *, below: str = "export/") -> Path:
    """A zip of a graph and its weights in a file of their own, in a folder as one zips it."""
    apart = folder / "apart"
    apart.mkdir()
    onnx.save(
        model,
        apart / "model.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location="weights.bin",
        size_threshold=0,
    )
    path = folder / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in apart.iterdir():
            archive.write(file, below + file.name)
    return path


def pointing_at(location: str, *, length: int | None = None) -> onnx.ModelProto:
    """A graph whose kernel is said to lie in the file of that name."""
    model = graph(pass_through(1))
    point(model.graph.initializer[0], location, length)
    return model


def point(tensor: onnx.TensorProto, location: str, length: int | None = None) -> None:
    length = len(tensor.raw_data) if length is None else length
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def constant_pointing_at(location: str) -> onnx.ModelProto:
    """The same, for a tensor in the attribute of a node in a function of the model."""
    value = numpy_helper.from_array(np.ones(1, np.float32), "value")
    point(value, location)
    model = graph(pass_through(1))
    model.functions.append(
        helper.make_function(
            "own",
            "Ones",
            [],
            ["one"],
            [helper.make_node("Constant", [], ["one"], value=value)],
            [helper.make_opsetid("", OPSET)],
        )
    )
    return model
