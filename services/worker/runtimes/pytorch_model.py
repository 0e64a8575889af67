"""Build a PyTorch network from its files, call it, and check what it returns.

Imports torch, so only a host process imports this.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from services.core.errors import ModelFailed
from services.worker.runtimes.base import ModelSpec, Report, StructureSpec
from services.worker.runtimes.module_file import import_module_file
from services.worker.runtimes.pytorch_artifact import (
    ArtifactForm,
    StateDict,
    read_artifact,
    some_of,
    unpickle_whole_model,
)

NUMBER_KINDS = frozenset("biuf")
"""numpy kinds that can be a mask: booleans, integers, floats."""


@dataclass(frozen=True, slots=True)
class PyTorchModel:
    """A network in evaluation mode on its device."""

    network: nn.Module
    device: torch.device
    takes_tensor: bool
    structures: tuple[StructureSpec, ...]

    def segment(self, volumes: Sequence[NDArray[np.int16]], report: Report) -> list[NDArray[np.bool_]]:
        """Call the network with the first channel and check its answer. Raises ModelFailed, or what it raises."""
        first = volumes[0]
        for structure in self.structures:
            shape = volumes[structure.channel_index].shape
            if shape != first.shape:
                raise ModelFailed(
                    f"Structure {structure.name!r} lies on a channel of shape {shape}, but a PyTorch model is given "
                    f"only the first channel, of shape {first.shape}; put the structure on a channel of that grid."
                )
        voxels = np.array(first, dtype=np.int32, order="C")  # a copy: the model may change it
        with torch.inference_mode():
            answer = self.network(torch.from_numpy(voxels).to(self.device) if self.takes_tensor else voxels)
            nonzero = _nonzero(answer, self._expected_shape(first.shape))
        report(1.0)
        return [nonzero] if len(self.structures) == 1 else list(nonzero)

    def _expected_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape if len(self.structures) == 1 else (len(self.structures), *shape)


def load(spec: ModelSpec) -> PyTorchModel:
    """The network of `spec`. Raises ModelFailed when a file or an option of it cannot work."""
    device = _device(spec)
    if spec.artifact is None:
        raise ModelFailed("The model has no model file; attach one written by torch.save or torch.jit.save.")
    if not spec.structures:
        raise ModelFailed("The model declares no structure, so its result has nowhere to go; declare at least one.")
    form, content = read_artifact(spec.artifact, device)
    if form is ArtifactForm.WHOLE_MODEL and not spec.allow_pickle:
        # Said before the module runs: nothing of an untrusted model has run by now.
        raise ModelFailed(
            "The model file is a pickle that runs code when it is opened; attach it again with --allow-pickle "
            "if you trust it, or save a state_dict."
        )
    if form is ArtifactForm.TORCHSCRIPT:
        network = content
    else:
        module = None if spec.module is None else import_module_file(spec.module, spec.module_name)
        if form is ArtifactForm.WHOLE_MODEL:
            content = unpickle_whole_model(spec.artifact, device, module)
        network = content if isinstance(content, nn.Module) else _from_state_dict(content, module, spec)
    return PyTorchModel(network.to(device).eval(), device, form is ArtifactForm.TORCHSCRIPT, spec.structures)


def _device(spec: ModelSpec) -> torch.device:
    wanted = spec.options.get("device", "cpu")
    try:
        device = torch.device(wanted)
        if device.type != "cpu":
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        available = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise ModelFailed(
            f"The device {wanted!r} is not available to this worker, which has {', '.join(available)}; set the "
            "option device to one of these, or give the worker the device."
        ) from error
    return device


def _from_state_dict(state: StateDict, module: ModuleType | None, spec: ModelSpec) -> nn.Module:
    if module is None:
        raise ModelFailed("The model file is a state_dict, which needs its network; attach the Python file as module.")
    network = _construct(_network_class(module, spec.class_name), spec.options.get("class_arguments", {}))
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


def _construct(network_class: type[nn.Module], arguments: object) -> nn.Module:
    if not isinstance(arguments, dict):
        raise ModelFailed(
            f"The option class_arguments is a {type(arguments).__name__}; it has to map argument names to values."
        )
    try:
        return network_class(**arguments)
    except Exception as error:
        given = f"with the arguments {', '.join(arguments)}" if arguments else "without arguments"
        raise ModelFailed(
            f"The class {network_class.__name__} cannot be made {given} ({type(error).__name__}: {error}); "
            "give what it needs as the option class_arguments."
        ) from error


def _nonzero(answer: Any, expected: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where `answer` is not zero, on the CPU. Raises ModelFailed when it is no mask of the expected shape."""
    if not isinstance(answer, torch.Tensor | np.ndarray):
        raise ModelFailed(
            f"The model returned a {type(answer).__name__}; it has to return an array or tensor of shape {expected}."
        )
    numeric = answer.dtype.kind in NUMBER_KINDS if isinstance(answer, np.ndarray) else not answer.is_complex()
    if not numeric:
        raise ModelFailed(
            f"The model returned an array of {answer.dtype} values; it has to return numbers, non-zero where the "
            "structure is."
        )
    if tuple(answer.shape) != expected:
        raise ModelFailed(
            f"The model returned an array of shape {tuple(answer.shape)}; expected {expected}, "
            + ("the shape of its input." if len(expected) == 3 else "one mask of the input's shape per structure.")
        )
    if isinstance(answer, torch.Tensor):
        answer = answer.to_dense() if answer.layout != torch.strided else answer
        not_numbers = int(torch.isnan(answer).sum()) if answer.is_floating_point() else 0
        nonzero: NDArray[np.bool_] = (answer != 0).cpu().numpy()
    else:
        not_numbers = int(np.isnan(answer).sum()) if answer.dtype.kind == "f" else 0
        nonzero = np.asarray(answer != 0)
    if not_numbers:
        raise ModelFailed(
            f"The model returned NaN in {not_numbers} voxels; it has to return zero or non-zero numbers everywhere."
        )
    return nonzero
