"""Writes the models that users of TensorFlow and Keras save. Importing this takes no TensorFlow, calling it does."""

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.model_spec import ModelSpec
from tests.runtimes.artifacts import spec_of
from tests.runtimes.artifacts_onnx import pass_through

FREE = (None, None, None)


def tensorflow() -> Any:
    """The library, quiet."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with warnings.catch_warnings(action="ignore"):
        import tensorflow as tf
    return tf


def keras() -> Any:
    """The library, on TensorFlow."""
    tensorflow()
    with warnings.catch_warnings(action="ignore"):
        import keras
    return keras


def tensorflow_spec(artifact: Path | None, module: Path | None = None, count: int = 1, **fields: Any) -> ModelSpec:
    return spec_of(artifact, module, count, runtime="tensorflow", **fields)


def channels_last(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """(outputs, channels, depth, height, width) → (depth, height, width, channels, outputs)."""
    return np.ascontiguousarray(kernel.transpose(2, 3, 4, 1, 0))


def keras_network(
    kernel: NDArray[np.float32], *, spatial: tuple[int | None, ...] = FREE, batch: int | None = None
) -> Any:
    """image → convolution with `kernel`, (outputs, channels, depth, height, width)."""
    layers = keras().layers
    image = keras().Input((*spatial, kernel.shape[1]), batch_size=batch, name="image")
    convolution = layers.Conv3D(kernel.shape[0], kernel.shape[2:], padding="same", use_bias=False)
    model = keras().Model(image, convolution(image))
    convolution.set_weights([channels_last(kernel)])
    return model


def saved(folder: Path, model: Any, name: str = "model.keras") -> Path:
    import logging

    logging.getLogger("absl").setLevel(logging.ERROR)  # that .h5 is old
    with warnings.catch_warnings(action="ignore"):
        model.save(folder / name)
    return folder / name


def tensorflow_module(kernel: NDArray[np.float32], shape: tuple[int | None, ...] | None = None) -> Any:
    """A tf.Module of the same network."""
    tf = tensorflow()
    shape = (None, *FREE, kernel.shape[1]) if shape is None else shape

    class Network(tf.Module):  # type: ignore[misc,name-defined]  # TensorFlow has no types
        def __init__(self) -> None:
            super().__init__()
            self.kernel = tf.Variable(channels_last(kernel))

        @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="image")])  # type: ignore[untyped-decorator]
        def __call__(self, image: Any) -> Any:
            return tf.nn.conv3d(image, self.kernel, [1] * 5, "SAME")

    return Network()


def saved_model_zip(folder: Path, module: Any, *, top: str = "network", **arguments: Any) -> Path:
    """A SavedModel as one zips its folder."""
    tensorflow().saved_model.save(module, str(folder / "apart" / top), **arguments)
    return zip_of(folder)


def zip_of(folder: Path) -> Path:
    """What lies in its folder `apart`."""
    return Path(shutil.make_archive(str(folder / "model"), "zip", folder / "apart"))


def saved_model(folder: Path, count: int = 1) -> ModelSpec:
    return tensorflow_spec(saved_model_zip(folder, tensorflow_module(pass_through(count))), count=count)


def keras_file(folder: Path, count: int = 1) -> ModelSpec:
    return tensorflow_spec(saved(folder, keras_network(pass_through(count))), count=count)


def hdf5_file(folder: Path, count: int = 1) -> ModelSpec:
    return tensorflow_spec(saved(folder, keras_network(pass_through(count)), "model.h5"), count=count)
