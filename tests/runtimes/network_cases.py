"""One network as each library exports it, with what that library itself answers."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from tests.runtimes import artifacts_onnx, artifacts_tensorflow
from tests.runtimes.artifacts_onnx import graph, weights
from tests.runtimes.artifacts_tensorflow import keras_network, tensorflow_module

Floats = NDArray[np.float32]
Network = Callable[[Floats], Floats]
"""(patches, channels, depth, height, width) → (patches, outputs, depth, height, width), by the library alone."""

SHAPE = (9, 14, 21)
PATCH = (6, 8, 10)

KERNEL = weights(4, 2)
"""Three structures and background of two channels; nothing about it is symmetrical."""


def onnx_network(path: Path) -> Network:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {"image": batch})[0]


def onnx_case(folder: Path) -> tuple[Path, Network]:
    path = artifacts_onnx.saved(folder, graph(KERNEL))
    return path, onnx_network(path)


def onnx_external_case(folder: Path) -> tuple[Path, Network]:
    return artifacts_onnx.external_zip(folder, graph(KERNEL)), onnx_network(folder / "apart" / "model.onnx")


def tensorflow_network(model: Any) -> Network:
    """The model itself, as it was before it was saved."""

    def answer(batch: Floats) -> Floats:
        answered: Floats = model(np.ascontiguousarray(np.moveaxis(batch, 1, -1))).numpy()
        return np.moveaxis(answered, -1, 1)

    return answer


def saved_model_case(folder: Path) -> tuple[Path, Network]:
    module = tensorflow_module(KERNEL)
    return artifacts_tensorflow.saved_model_zip(folder, module), tensorflow_network(module)


def exported_case(folder: Path) -> tuple[Path, Network]:
    """By Keras: an object with endpoints, which cannot be called itself."""
    model = keras_network(KERNEL)
    model.export(folder / "apart" / "network", verbose=False)
    return artifacts_tensorflow.zip_of(folder), tensorflow_network(model)


def keras_case(folder: Path) -> tuple[Path, Network]:
    model = keras_network(KERNEL)
    return artifacts_tensorflow.saved(folder, model), tensorflow_network(model)


def hdf5_case(folder: Path) -> tuple[Path, Network]:
    model = keras_network(KERNEL)
    return artifacts_tensorflow.saved(folder, model, "model.h5"), tensorflow_network(model)


def torch_network() -> torch.nn.Module:
    """The same convolution."""
    outputs, channels, *size = KERNEL.shape
    network = torch.nn.Conv3d(channels, outputs, (size[0], size[1], size[2]), padding="same", bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.from_numpy(KERNEL))
    return network.eval()


def by_torch(network: torch.nn.Module) -> Network:
    """The network itself, as it was before it was exported."""

    @torch.inference_mode()
    def answer(batch: Floats) -> Floats:
        answered: Floats = network(torch.from_numpy(np.ascontiguousarray(batch))).numpy()
        return answered

    return answer


def torchscript_case(folder: Path) -> tuple[Path, Network]:
    network = torch_network()
    with warnings.catch_warnings(action="ignore"):  # torch.jit is deprecated; files of users are not
        script: Any = torch.jit.script(network)
        script.save(str(folder / "network.pt"))
    return folder / "network.pt", by_torch(network)


def pt2_case(folder: Path) -> tuple[Path, Network]:
    network = torch_network()
    free = dict.fromkeys((0, 2, 3, 4), torch.export.Dim.AUTO)
    example = torch.zeros((2, KERNEL.shape[1], *PATCH))
    program = torch.export.export(network, (example,), dynamic_shapes=(free,))
    torch.export.save(program, folder / "network.pt2")
    return folder / "network.pt2", by_torch(network)


CASES: dict[str, tuple[str, Callable[[Path], tuple[Path, Network]]]] = {
    "pytorch TorchScript": ("pytorch", torchscript_case),
    "pytorch pt2": ("pytorch", pt2_case),
    "onnx": ("onnx", onnx_case),
    "onnx with external data": ("onnx", onnx_external_case),
    "tensorflow SavedModel": ("tensorflow", saved_model_case),
    "tensorflow SavedModel exported by Keras": ("tensorflow", exported_case),
    "keras": ("tensorflow", keras_case),
    "keras h5": ("tensorflow", hdf5_case),
}
