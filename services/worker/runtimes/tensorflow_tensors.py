"""TensorFlow set up for one host, and its tensors as torch's: on one device, in one memory.

Imports TensorFlow, so only a host that runs it imports this.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from services.core.errors import ModelFailed
from services.core.model_options import ModelOptions
from services.worker.engine.devices import device_of
from services.worker.thread_limit import thread_limit

ALIGNMENT_BYTES = 64
"""Where TensorFlow's kernels expect memory on the CPU to begin."""

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # errors: what goes to the host's output is for people

with warnings.catch_warnings(action="ignore"):  # of libraries about each other
    import tensorflow as tf


def tensorflow_device(options: ModelOptions) -> torch.device:
    """The device that the options ask for, and TensorFlow kept to it; `auto` is a GPU where the worker has one.

    To be called before anything is computed. TensorFlow takes GPU memory as it needs it, not all of it.
    Raises ModelFailed when TensorFlow cannot use it: on a worker with a GPU nothing runs on the CPU unasked.
    """
    if (threads := thread_limit()) is not None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    gpus = tf.config.list_physical_devices("GPU")
    wanted = options.inference.device
    if not gpus and wanted not in {"auto", "cpu"}:
        raise _no_gpu(wanted)
    device = device_of(options)
    if not gpus and device.type == "cuda":
        raise _no_gpu(str(device))
    index = device.index or 0
    if device.type == "cpu":
        tf.config.set_visible_devices([], "GPU")
    elif index >= len(gpus):
        raise ModelFailed(
            f"TensorFlow sees {len(gpus)} GPUs, so it cannot use the device {wanted!r}; set the option "
            "inference.device to one of them."
        )
    else:
        # Those before it stay visible: both libraries have to count alike to pass memory to each other.
        tf.config.set_visible_devices(gpus[: index + 1], "GPU")
        for gpu in gpus[: index + 1]:
            tf.config.experimental.set_memory_growth(gpu, True)
    return device


def _no_gpu(wanted: str) -> ModelFailed:
    return ModelFailed(
        f"TensorFlow {tf.__version__} sees no GPU, so it cannot use the device {wanted!r}; install "
        "tensorflow[and-cuda] in the place of tensorflow-cpu, or set the option inference.device to cpu."
    )


@contextmanager
def placed(device: torch.device) -> Iterator[None]:
    """A context in which TensorFlow computes on that device, and runs out of memory as torch does."""
    try:
        with tf.device("/CPU:0" if device.type == "cpu" else f"/GPU:{device.index or 0}"):
            yield
    except tf.errors.ResourceExhaustedError as error:
        raise torch.OutOfMemoryError(str(error)) from error


def compiled(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function as a graph for each shape that it is called with."""
    graph: Callable[[Any], Any] = tf.function(function)
    return graph


def to_tensorflow(values: Tensor) -> Any:
    """The same memory as a tensor of TensorFlow's. `values`: contiguous."""
    if values.device.type == "cuda":
        # TensorFlow computes on streams of its own: the values have to be there, and the last answer, whose memory it
        # may now use again, has to be read.
        torch.cuda.current_stream(values.device).synchronize()
    elif values.data_ptr() % ALIGNMENT_BYTES:
        values = values.clone()
    return tf.experimental.dlpack.from_dlpack(values.__dlpack__())


def to_torch(values: Any, device: torch.device) -> Tensor:
    """The same memory as a tensor of torch's, on that device."""
    if device.type == "cuda":
        tf.test.experimental.sync_devices()
    tensor: Tensor = torch.utils.dlpack.from_dlpack(tf.experimental.dlpack.to_dlpack(values))
    return tensor.to(device)
