"""Build a PyTorch network from its files, and call it.

Imports torch, so only a host process imports this.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from services.core.errors import ModelFailed
from services.core.model_choices import Call, Precision
from services.core.model_options import ModelOptions
from services.core.model_spec import ModelSpec
from services.worker.engine.devices import device_of, is_out_of_memory, precision_of
from services.worker.engine.model import EngineModel
from services.worker.runtimes.base import LoadedModel
from services.worker.runtimes.module_file import import_module_file
from services.worker.runtimes.pytorch_artifact import (
    ArtifactForm,
    StateDict,
    map_weights,
    read_artifact,
    read_exported,
    some_of,
    unpickle_whole_model,
)
from services.worker.runtimes.unused_gpu import with_unused_gpu_noted

COMPILED = frozenset({ArtifactForm.TORCHSCRIPT, ArtifactForm.EXPORTED})

HALF = frozenset({torch.float16, torch.bfloat16})

Network = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class TorchPredictor:
    """A network in evaluation mode on its device."""

    network: Network
    device: torch.device
    precision: torch.dtype

    def __call__(self, batch: Any) -> Any:
        """Raises torch.OutOfMemoryError also where torch itself has no such name for it."""
        try:
            return self._answered(batch)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or not is_out_of_memory(error):
                raise
            raise torch.OutOfMemoryError(str(error)) from error

    def _answered(self, batch: Any) -> Any:
        if isinstance(batch, np.ndarray) or not batch.is_floating_point():
            return self.network(batch)
        if self.device.type == "cuda":
            batch = batch.to(memory_format=torch.channels_last_3d)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision is not torch.float32):
            return self.network(batch)


def load(spec: ModelSpec, options: ModelOptions) -> LoadedModel:
    """The network of `spec`. Raises ModelFailed when a file or an option of it cannot work."""
    device = device_of(options)
    if spec.artifact is None:
        raise ModelFailed(
            "The model has no model file; attach one written by torch.save, torch.jit.save or torch.export.save."
        )
    form, content = read_artifact(spec.artifact, device)
    if content is None and not spec.allow_pickle:
        # Said before the module runs: nothing of an untrusted model has run by now.
        raise ModelFailed(
            "The model file is a pickle that runs code when it is opened; attach it again with --allow-pickle "
            "if you trust it, or save a state_dict."
        )
    if form in COMPILED:
        network = read_exported(spec.artifact, device) if content is None else content
    else:
        module = None if spec.module is None else import_module_file(spec.module, spec.module_name)
        if form is ArtifactForm.WHOLE_MODEL:
            content = unpickle_whole_model(spec.artifact, device, module)
        network = content if isinstance(content, nn.Module) else _from_state_dict(content, module, spec, options)
    if form is not ArtifactForm.EXPORTED:  # which knows neither, and has both behind it
        network = network.to(device).eval()
    if device.type == "cuda" and options.call is not Call.ARRAY and form is not ArtifactForm.EXPORTED:
        network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's own gap
    precision = precision_of(options, device)
    if options.inference.precision is Precision.AUTO and precision is torch.float32:
        # Torch refuses to convolve an image in single precision with weights in half.
        precision = _own_precision(network)
    predictor = TorchPredictor(network, device, precision)
    single = None if precision is torch.float32 else TorchPredictor(_single(network, form), device, torch.float32)
    # TorchScript and exported programs know no ndarray.
    model = EngineModel(spec, options, predictor, takes_tensor=form in COMPILED, single=single)
    return with_unused_gpu_noted(model, options, device, places_itself=form not in COMPILED)


def _own_precision(network: nn.Module) -> torch.dtype:
    """What all of its weights are in, where that is half precision; single precision for any other."""
    [precision, *others] = {weights.dtype for weights in network.parameters()} or {torch.float32}
    return precision if precision in HALF and not others else torch.float32


def _single(network: nn.Module, form: ArtifactForm) -> Network:
    """The network, to be called where half precision was not enough."""
    if not _in_half(network):
        return network
    if form in COMPILED:
        return _refuse_single
    return partial(_called_in_single, network)


def _in_half(network: nn.Module) -> dict[str, torch.Tensor]:
    """The weights that are in half precision by themselves."""
    own = chain(network.named_parameters(), network.named_buffers())
    return {name: weights for name, weights in own if weights.dtype in HALF}


def _called_in_single(network: nn.Module, batch: Any) -> Any:
    """Its answer with all weights in single precision: for this call alone, then they are its own again.

    Raises ModelFailed where there is more to it in half precision than its weights.
    """
    weights = {name: half.float() for name, half in _in_half(network).items()}
    try:
        return functional_call(network, weights, (batch,))
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        reason = re.sub(r"\s+", " ", str(error))[:300]
        raise ModelFailed(
            "The model's scores are too large for half precision, and its network cannot be called in single precision "
            f"({reason}); have its module convert nothing to half precision."
        ) from error


def _refuse_single(_: Any) -> Any:
    """What is compiled computes in what it was compiled for. Raises ModelFailed."""
    raise ModelFailed(
        "The model's scores are too large for half precision, and its weights were saved in it; call float() on the "
        "network before it is scripted or exported, and attach the new file."
    )


def _from_state_dict(state: StateDict, module: ModuleType | None, spec: ModelSpec, options: ModelOptions) -> nn.Module:
    if module is None:
        raise ModelFailed("The model file is a state_dict, which needs its network; attach the Python file as module.")
    network = _construct(_network_class(module, spec.class_name), options.class_arguments)
    try:
        difference = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = re.sub(r"\s+", " ", str(error))[:300]
        raise ModelFailed(
            f"The state_dict does not fit the class {type(network).__name__} ({reason}); attach the file and the "
            "module of one and the same network."
        ) from error
    parts = []
    if difference.missing_keys:
        parts.append(f"lacks {some_of(difference.missing_keys)}")
    if difference.unexpected_keys:
        parts.append(f"has {some_of(difference.unexpected_keys)} too much")
    if parts:
        raise ModelFailed(
            f"The state_dict does not fit the class {type(network).__name__}: it {' and '.join(parts)}; attach the "
            "file and the module of one and the same network."
        )
    map_weights(network, state)
    return network


def _network_class(module: ModuleType, class_name: str | None) -> type[nn.Module]:
    candidates = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__
    }
    listed = ", ".join(sorted(candidates)) or "none"
    if class_name is None:
        if len(candidates) == 1:
            return next(iter(candidates.values()))
        raise ModelFailed(
            f"The module file {module.__name__}.py does not define exactly one network, so name its class; "
            f"the classes derived from torch.nn.Module are: {listed}."
        )
    chosen = getattr(module, class_name, None)
    if not (isinstance(chosen, type) and issubclass(chosen, nn.Module)):
        raise ModelFailed(
            f"The module file {module.__name__}.py has no class {class_name!r} derived from torch.nn.Module; "
            f"attach the model again with one of: {listed}."
        )
    return chosen


def _construct(network_class: type[nn.Module], arguments: dict[str, Any]) -> nn.Module:
    try:
        return network_class(**arguments)
    except Exception as error:
        given = f"with the arguments {', '.join(arguments)}" if arguments else "without arguments"
        raise ModelFailed(
            f"The class {network_class.__name__} cannot be made {given} ({type(error).__name__}: {error}); "
            "give what it needs as the option class_arguments."
        ) from error
