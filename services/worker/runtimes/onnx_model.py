"""An ONNX Runtime session, and calls of it that share memory with torch.

Imports torch first, whose wheel brings the CUDA libraries that ONNX Runtime looks for. Only a host imports this.
"""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch  # isort: split

import onnxruntime
from torch import Tensor

from services.core.errors import ModelFailed
from services.core.model_choices import Call
from services.core.model_options import ModelOptions
from services.core.model_spec import ModelSpec, StructureSpec
from services.worker.engine.devices import device_of
from services.worker.engine.model import EngineModel
from services.worker.runtimes.base import LoadedModel
from services.worker.runtimes.declared_input import DeclaredInput, refuse_precision
from services.worker.runtimes.named_outputs import answer_names, with_first_noted
from services.worker.runtimes.onnx_artifact import onnx_file
from services.worker.runtimes.unused_gpu import with_unused_gpu_noted
from services.worker.thread_limit import thread_limit

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

INPUT_TYPES = {"tensor(float)": (torch.float32, np.float32), "tensor(float16)": (torch.float16, np.float16)}

OUT_OF_MEMORY = re.compile(r"[Ff]ailed to allocate memory|out of memory|CUDA failure 2\b")
"""What ONNX Runtime's arena, and CUDA below it, say."""

ERRORS_ONLY = 3
"""Severity of ONNX Runtime's own log; its warnings are for those who write exporters."""


class OnnxPredictor:
    """A session on a device, called with torch's memory and answering with memory that torch shares."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        device: torch.device,
        structures: Sequence[StructureSpec],
        options: ModelOptions,
    ) -> None:
        """Prepare calls of a session that runs on that device.

        Raises ModelFailed when the graph's outputs cannot be an answer.
        """
        self.device = device
        self._session = session
        self._input = session.get_inputs()[0]
        outputs = session.get_outputs()
        self.named = answer_names([output.name for output in outputs], structures, options)
        self._answers = self.named or (outputs[0].name,)
        for output in outputs:
            if output.name in self._answers and not output.type.startswith("tensor("):
                raise ModelFailed(
                    f"The model's output {output.name!r} is a {output.type}; export the model with a tensor as output."
                )
        self._run_options = onnxruntime.RunOptions()
        self._run_options.log_severity_level = ERRORS_ONLY
        if options.call is Call.TENSOR:
            # Calls differ in size, and the arena would keep the room of the largest.
            arena = "cpu:0" if device.type == "cpu" else f"gpu:{device.index or 0}"
            self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", arena)

    def __call__(self, batch: Any) -> Any:
        dtype, element = INPUT_TYPES[self._input.type]
        values: Tensor = batch.to(dtype).contiguous()
        place = (self.device.type, self.device.index or 0)
        binding = self._session.io_binding()
        binding.bind_input(self._input.name, *place, element, tuple(values.shape), values.data_ptr())
        for name in self._answers:
            binding.bind_output(name, *place)
        if self.device.type == "cuda":
            # ONNX Runtime computes on a stream of its own: the values have to be there, and the last answer, whose
            # memory it may now use again, has to be read.
            torch.cuda.current_stream(self.device).synchronize()
        try:
            self._session.run_with_iobinding(binding, self._run_options)
        except Exception as error:
            # Its exceptions have no common class of their own, and none for this.
            if OUT_OF_MEMORY.search(str(error)):
                raise torch.OutOfMemoryError(str(error)) from error
            raise
        binding.synchronize_outputs()
        answers = [_as_tensor(value) for value in binding.get_outputs_as_ortvaluevector()]
        return dict(zip(self.named, answers, strict=True)) if self.named else answers[0]


def load(spec: ModelSpec, options: ModelOptions) -> LoadedModel:
    """The model of `spec`. Raises ModelFailed when its file or an option cannot work."""
    refuse_precision(options)
    device = onnx_device(options)
    with onnx_file(spec.artifact) as path:
        session = open_session(path, device)
    _check_input(session, spec, options)
    predictor = OnnxPredictor(session, device, spec.structures, options)
    model = with_unused_gpu_noted(EngineModel(spec, options, predictor), options, device)
    outputs = [output.name for output in session.get_outputs()]
    return model if predictor.named else with_first_noted(model, outputs, outputs[0], spec.structures)


def onnx_device(options: ModelOptions) -> torch.device:
    """The device that the options ask for; `auto` is a GPU where the worker has one.

    Raises ModelFailed when ONNX Runtime cannot use it: on a worker with a GPU nothing runs on the CPU unasked.
    """
    wanted = options.inference.device
    providers = onnxruntime.get_available_providers()
    if CUDA not in providers and wanted not in {"auto", "cpu"}:
        raise _no_cuda(wanted, providers)
    device = device_of(options)
    if CUDA not in providers and device.type == "cuda":
        raise _no_cuda(str(device), providers)
    return device


def open_session(path: Path, device: torch.device) -> onnxruntime.InferenceSession:
    """A session that runs on that device.

    Raises ModelFailed when ONNX Runtime cannot use the file, or the device.
    """
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = ERRORS_ONLY
    if (threads := thread_limit()) is not None:
        settings.intra_op_num_threads = threads
    providers: list[Any] = [CPU]
    if device.type == "cuda":
        # Grown by what is asked for: torch and other hosts use the same GPU. The CPU's provider computes shapes.
        cuda = {"device_id": device.index or 0, "arena_extend_strategy": "kSameAsRequested"}
        providers = [(CUDA, cuda), CPU]
    try:
        with warnings.catch_warnings(action="ignore"):  # a provider that is not there is an error below
            session = onnxruntime.InferenceSession(str(path), settings, providers=providers, enable_fallback=False)
    except Exception as error:
        # Its exceptions have no common class of their own. The path within the scratch folder helps nobody.
        reason = " ".join(str(error).replace(str(path), "the model").split())[:300]
        raise ModelFailed(
            f"ONNX Runtime {onnxruntime.__version__} cannot run the model on {device} ({reason}); export it for this "
            "version, or correct the export."
        ) from error
    used = session.get_providers()
    if device.type == "cuda" and used[0] != CUDA:
        raise _no_cuda(str(device), used)
    return session


def _no_cuda(wanted: str, providers: Sequence[str]) -> ModelFailed:
    return ModelFailed(
        f"ONNX Runtime cannot use the device {wanted!r}, because its providers are {', '.join(providers)}; install "
        "onnxruntime-gpu, for this CUDA, in the place of onnxruntime, or set the option inference.device to cpu."
    )


def _check_input(session: onnxruntime.InferenceSession, spec: ModelSpec, options: ModelOptions) -> None:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        listed = ", ".join(each.name for each in inputs) or "none"
        raise ModelFailed(
            f"The model has {len(inputs)} inputs ({listed}); export it with one, the image, and everything else fixed."
        )
    [image] = inputs
    axes = [length if isinstance(length, int) and length > 0 else None for length in image.shape]
    declared = DeclaredInput.of_axes(image.name, axes)
    if image.type not in INPUT_TYPES:
        raise ModelFailed(
            f"The model's input {image.name!r} is a {image.type}; export the model with an input of float32 or float16."
        )
    declared.check(spec, options)


def _as_tensor(value: Any) -> Tensor:
    """An answer of ONNX Runtime as a tensor over the same memory, on its device; it keeps that memory."""
    tensor: Tensor = torch.utils.dlpack.from_dlpack(value.to_dlpack())
    return tensor.bool() if value.data_type() == "tensor(bool)" else tensor  # bytes in older versions
