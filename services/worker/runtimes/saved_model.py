"""A SavedModel of TensorFlow: its signature serving_default, or the object itself where that can be called.

Imports torch; TensorFlow only when there is one to load.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from services.core.errors import ModelFailed, RuntimeUnavailable
from services.core.model_options import ModelOptions
from services.core.model_spec import ModelSpec
from services.worker.engine.model import EngineModel
from services.worker.runtimes.base import LoadedModel
from services.worker.runtimes.channels_last import from_channels_last, to_channels_last
from services.worker.runtimes.declared_input import DeclaredInput, refuse_precision
from services.worker.runtimes.named_outputs import answer_names, with_first_noted
from services.worker.runtimes.tensorflow_artifact import MOST_BYTES, MOST_FILES
from services.worker.runtimes.unpacking import unpacked
from services.worker.runtimes.unused_gpu import with_unused_gpu_noted

SIGNATURE = "serving_default"

FIRST_OUTPUT = "output_0"
"""As TensorFlow calls it where a function returns a list."""

INPUT_TYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class SavedModelPredictor:
    """A function of a SavedModel, on its device."""

    device: torch.device
    dtype: torch.dtype
    function: Callable[[Any], Any]
    """One tensor of TensorFlow's to an answer of them, what it is called with being (patches, …, channels)."""
    loaded: Any
    """The object that has the variables: functions do not keep it."""
    named: Sequence[str]
    """Outputs of a dict that are the answer, one per structure; empty where it has one."""
    first: str | None
    """That one."""

    def __call__(self, batch: Any) -> Any:
        from services.worker.runtimes import tensorflow_tensors as tensors  # noqa: PLC0415 - imported by now

        with tensors.placed(self.device):
            answer = self.function(tensors.to_tensorflow(to_channels_last(batch.to(self.dtype))))
        if isinstance(answer, Mapping):
            answer = {name: answer[name] for name in self.named} if self.named else answer[self.first]
        return from_channels_last(answer, lambda values: tensors.to_torch(values, self.device))


def load(spec: ModelSpec, artifact: Path, options: ModelOptions) -> LoadedModel:
    """The model of `spec`.

    Raises ModelFailed when its file or an option cannot work, RuntimeUnavailable where TensorFlow is not installed.
    """
    refuse_precision(options)
    if find_spec("tensorflow") is None:
        raise RuntimeUnavailable(
            "The model is a SavedModel, which needs TensorFlow; pip install 'segint[tensorflow]', or attach the model "
            "as a .keras file, which runs without it."
        )
    import tensorflow as tf  # noqa: PLC0415 - which that has set up

    from services.worker.runtimes import tensorflow_tensors as tensors  # noqa: PLC0415 - takes many seconds

    device = tensors.tensorflow_device(options)
    with tensors.placed(device):
        loaded = _read(artifact, tf)
    function, image, outputs = _function(loaded, tf)
    if image.shape.rank is None:
        raise ModelFailed(
            f"The model's input {image.name!r} says nothing of its axes; save it with an input signature of five: "
            "patches, depth, height, width, channels."
        )
    declared = DeclaredInput.of_axes(image.name, image.shape.as_list(), channels_last=True)
    if image.dtype.name not in INPUT_TYPES:
        raise ModelFailed(
            f"The model's input {image.name!r} is of {image.dtype.name}; save the model with an input of float32 or "
            "float16."
        )
    declared.check(spec, options, channels_last=True)
    named = answer_names(outputs, spec.structures, options)
    first = None if named else _first(outputs)
    dtype = INPUT_TYPES[image.dtype.name]
    predictor = SavedModelPredictor(device, dtype, function, loaded, named, first)
    model = with_unused_gpu_noted(EngineModel(spec, options, predictor), options, device)
    return model if first is None else with_first_noted(model, outputs, first, spec.structures)


def _read(artifact: Path, tf: Any) -> Any:
    folder = unpacked(artifact, most_bytes=MOST_BYTES, most_files=MOST_FILES)
    try:
        places = [path.parent for path in folder.rglob("saved_model.pb")]
        if len(places) != 1:
            raise ModelFailed(f"The zip holds {len(places)} SavedModels; pack the one that is to be run.")
        try:
            return tf.saved_model.load(str(places[0]))
        except Exception as error:  # there is no common class of what its readers raise
            reason = " ".join(str(error).replace(str(folder), "").split())[:300]
            raise ModelFailed(
                f"The SavedModel is damaged or not complete ({type(error).__name__}: {reason}); save it again and pack "
                "the whole folder, with its variables."
            ) from error
    finally:
        # All of it is in memory by now; what lies here would count towards the scratch limit.
        shutil.rmtree(folder, ignore_errors=True)


def _function(loaded: Any, tf: Any) -> tuple[Callable[[Any], Any], Any, list[str]]:
    """What to call with one tensor, the TensorSpec of that, and the names of its outputs where it returns a dict,
    sorted: the file has them in a map of protobuf's, whose order is another in each process.

    Raises ModelFailed.
    """
    signatures = getattr(loaded, "signatures", {})
    if SIGNATURE in signatures:
        signature = signatures[SIGNATURE]
        _, inputs = signature.structured_input_signature
        image = _only(list(inputs.values()))
        [name] = inputs
        return lambda values: signature(**{name: values}), image, sorted(signature.structured_outputs)
    call = getattr(loaded, "__call__", None)  # noqa: B004 - its traces are what is asked for
    for traced in getattr(call, "concrete_functions", []):
        arguments, keywords = traced.structured_input_signature
        inputs = [spec for spec in tf.nest.flatten((arguments, keywords)) if isinstance(spec, tf.TensorSpec)]
        image = _only(inputs)
        answer = traced.structured_outputs
        return loaded, image, sorted(answer) if isinstance(answer, Mapping) else []
    listed = ", ".join(sorted(signatures)) or "none"
    raise ModelFailed(
        f"The SavedModel has no signature {SIGNATURE} (it has {listed}) and cannot be called itself; save it with "
        "signatures=, or by model.export."
    )


def _first(outputs: Sequence[str]) -> str | None:
    """The output that is the answer. A dict of a SavedModel has no order but that of TensorFlow's own names."""
    if len(outputs) < 2:
        return outputs[0] if outputs else None
    if FIRST_OUTPUT in outputs:
        return FIRST_OUTPUT
    raise ModelFailed(
        f"The model has the outputs {', '.join(sorted(outputs))}, and which is the answer cannot be told; save it with "
        "one of them, or name them for the structures."
    )


def _only(inputs: Sequence[Any]) -> Any:
    if len(inputs) != 1:
        listed = ", ".join(sorted(str(image.name) for image in inputs)) or "none"
        raise ModelFailed(
            f"The model has {len(inputs)} inputs ({listed}); save it with one, the image, and everything else fixed."
        )
    return inputs[0]
