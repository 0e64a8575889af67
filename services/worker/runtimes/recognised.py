"""Which runtime a model file looks made for, told from its content: on the volume it has another name."""

import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from services.core.catalogue import RuntimeName
from services.core.model_spec import ModelSpec
from services.worker.runtimes.tensorflow_artifact import HDF5_MAGIC
from services.worker.runtimes.unpacking import READ_FAULTS, ZIP_MAGIC

START_BYTES = 512

ONNX_VERSIONS = range(3, 64)
ONNX_NEXT_FIELDS = b"\x12\x1a\x22\x28\x32\x3a\x42"
"""ONNX has no magic bytes: a ModelProto begins with its ir_version, a small number, and one of these fields follows."""


def other_runtime(spec: ModelSpec) -> str:
    """A sentence, after a space, for a file that could not be loaded and looks made for another runtime; else empty."""
    found = None if spec.artifact is None else likely_runtime(spec.artifact)
    return "" if found in {None, spec.runtime} else f" It looks like a file for --runtime {found}."


def likely_runtime(artifact: Path) -> RuntimeName | None:
    """None where the file could be of several libraries, as a bare pickle can, or is of none."""
    try:
        with artifact.open("rb") as file:
            start = file.read(START_BYTES)
        if start.startswith(ZIP_MAGIC):
            with zipfile.ZipFile(artifact) as archive:
                return _of_members([PurePosixPath(name) for name in archive.namelist()])
    except (OSError, *READ_FAULTS):
        return None
    if start.startswith(HDF5_MAGIC):
        return RuntimeName.TENSORFLOW
    if start.startswith(b"{") and b"learner" in start:  # a booster, as JSON or UBJSON
        return RuntimeName.XGBOOST
    if start.startswith(b"\x08") and len(start) > 2 and start[1] in ONNX_VERSIONS and start[2] in ONNX_NEXT_FIELDS:
        return RuntimeName.ONNX
    return None


def _of_members(members: Sequence[PurePosixPath]) -> RuntimeName | None:
    names = {member.name for member in members}
    ends = {member.parts[-2:] for member in members}
    if {("configs", f"inference.{suffix}") for suffix in ("json", "yaml", "yml")} & ends:
        return RuntimeName.MONAI_BUNDLE  # before what may lie in one
    if "saved_model.pb" in names or {"config.json", "model.weights.h5"} <= names:
        return RuntimeName.TENSORFLOW
    if any(name.lower().endswith(".onnx") for name in names):
        return RuntimeName.ONNX
    if "data.pkl" in names or ("models", "model.json") in ends:  # of torch.save and torch.jit.save; of torch.export
        return RuntimeName.PYTORCH
    return RuntimeName.SKLEARN if "schema.json" in names else None  # of skops
