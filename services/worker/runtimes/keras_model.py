"""A Keras model, on TensorFlow where that is installed and on PyTorch elsewhere.

Imports torch; Keras, and what it runs on, only when there is a model to load.
"""

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from services.core.errors import ModelFailed
from services.core.model_choices import Call
from services.core.model_options import ModelOptions
from services.core.model_spec import ModelSpec, StructureSpec
from services.worker.engine.devices import device_of
from services.worker.engine.model import EngineModel
from services.worker.runtimes.base import LoadedModel
from services.worker.runtimes.channels_last import from_channels_last, to_channels_last
from services.worker.runtimes.declared_input import DeclaredInput, refuse_precision
from services.worker.runtimes.module_file import import_module_file
from services.worker.runtimes.named_outputs import answer_names, with_first_noted
from services.worker.runtimes.tensorflow_artifact import ArtifactForm
from services.worker.runtimes.unused_gpu import with_unused_gpu_noted

UNSAFE = ("safe_mode", "unsafe_deserialization")
"""In every message of Keras about what safe_mode has refused."""

UNKNOWN_CLASS = ("Could not locate", "Unknown layer", "Unknown object", "Unknown activation function", "not registered")

WEIGHTS_ONLY = ("No model config found", "No model found in config")


@dataclass(frozen=True, slots=True)
class KerasPredictor:
    """A Keras model in inference mode, on its device."""

    device: torch.device
    function: Callable[[Any], Any]
    """One tensor of the backend's to an answer of them."""
    to_backend: Callable[[Tensor], Any]
    to_torch: Callable[[Any], Tensor]
    placed: Callable[[], Any]
    """A context in which the backend computes on the device."""
    outputs: Sequence[str]
    """Names of what the model returns a list of."""
    structures: Sequence[StructureSpec]
    options: ModelOptions

    def __call__(self, batch: Any) -> Any:
        with self.placed():
            answer = self.function(self.to_backend(to_channels_last(batch)))
        entries = answer if isinstance(answer, dict) else {}
        if isinstance(answer, list | tuple) and len(answer) == len(self.outputs):
            entries = dict(zip(self.outputs, answer, strict=True))
        if named := answer_names(list(entries), self.structures, self.options):
            answer = {name: entries[name] for name in named}
        elif isinstance(answer, dict) and len(answer) == 1:
            [answer] = answer.values()
        return from_channels_last(answer, self.to_torch)


def load(spec: ModelSpec, artifact: Path, form: ArtifactForm, options: ModelOptions) -> LoadedModel:
    """The model of `spec`. Raises ModelFailed when a file or an option of it cannot work."""
    refuse_precision(options)
    on_tensorflow = find_spec("tensorflow") is not None
    os.environ["KERAS_BACKEND"] = "tensorflow" if on_tensorflow else "torch"
    to_backend: Callable[[Tensor], Any] = _itself
    placed: Callable[[], Any] = nullcontext
    if on_tensorflow:
        from services.worker.runtimes import tensorflow_tensors as tensors  # noqa: PLC0415 - takes many seconds

        device = tensors.tensorflow_device(options)
        to_backend = tensors.to_tensorflow

        def to_torch(values: Any) -> Tensor:
            return tensors.to_torch(values, device)

        def placed() -> Any:
            return tensors.placed(device)
    else:
        device = device_of(options)
        os.environ["KERAS_TORCH_DEVICE"] = str(device)
        to_torch = _itself
    with placed():
        model = _read(spec, artifact, form)
    _check_input(model, spec, options)
    outputs = [str(name) for name in getattr(model, "output_names", [])]

    def called(values: Any) -> Any:
        return model(values, training=False)

    # Patches have one shape, or two, so that a graph of each pays; volumes have as many as there are patients.
    compiled = on_tensorflow and options.call is Call.SLIDING_WINDOW
    function = tensors.compiled(called) if compiled else called
    predictor = KerasPredictor(device, function, to_backend, to_torch, placed, outputs, spec.structures, options)
    engine_model = with_unused_gpu_noted(EngineModel(spec, options, predictor), options, device)
    in_order = len(outputs) > 1 and isinstance(getattr(model, "output", None), list | tuple)
    if not in_order or answer_names(outputs, spec.structures, options):
        return engine_model
    return with_first_noted(engine_model, outputs, outputs[0], spec.structures)


def _itself(values: Any) -> Any:
    return values


def _read(spec: ModelSpec, artifact: Path, form: ArtifactForm) -> Any:
    with warnings.catch_warnings(action="ignore"):
        import keras  # noqa: PLC0415 - only now is it known on what it is to run
    module = None if spec.module is None else import_module_file(spec.module, spec.module_name)
    own = {name: value for name, value in vars(module).items() if isinstance(value, type)} if module else {}
    folder = Path(tempfile.mkdtemp(prefix="model-"))
    path = folder / f"model{form.value}"
    path.symlink_to(artifact.resolve())  # Keras tells the forms by their suffix
    try:
        with warnings.catch_warnings(action="ignore"):
            return keras.saving.load_model(path, custom_objects=own, compile=False, safe_mode=not spec.allow_pickle)
    except Exception as error:  # there is no common class of what its readers raise
        raise _refused(" ".join(str(error).replace(str(path), "the model file").split()), error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refused(text: str, error: Exception) -> ModelFailed:
    if any(word in text for word in UNSAFE):
        return ModelFailed(
            "The model holds Python code, a Lambda layer for instance, which runs when it is opened; attach it again "
            "with --allow-pickle if you trust it, or put a layer class in its place."
        )
    if any(word in text for word in WEIGHTS_ONLY):
        return ModelFailed("The model file holds weights only; save the whole model by model.save and attach that.")
    if places := [text.find(word) for word in UNKNOWN_CLASS if word in text]:
        return ModelFailed(
            f"The model file needs a class that is not here ({text[min(places) :][:120]}…); attach the Python file "
            "that defines it as the module."
        )
    return ModelFailed(
        f"The model file is damaged or no model of this version of Keras ({type(error).__name__}: {text[:200]}); save "
        "it again by model.save and attach the new file."
    )


def _check_input(model: Any, spec: ModelSpec, options: ModelOptions) -> None:
    """A model that is a class of its own may say nothing of its input; then the first call tells."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return
    if len(inputs) != 1:
        listed = ", ".join(image.name for image in inputs)
        raise ModelFailed(
            f"The model has {len(inputs)} inputs ({listed}); save it with one, the image, and everything else fixed."
        )
    [image] = inputs
    declared = DeclaredInput.of_axes(image.name, list(image.shape), channels_last=True)
    if not str(image.dtype).startswith(("float", "bfloat")):
        raise ModelFailed(f"The model's input {image.name!r} is of {image.dtype}; save it with an input of float32.")
    declared.check(spec, options, channels_last=True)
