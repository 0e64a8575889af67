"""Read a PyTorch model file: find out which of the four forms it is, and read it without trusting it.

Imports torch, so only a host process imports this.
"""

import io
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from enum import Enum, auto
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from services.core.errors import ModelFailed
from services.worker.runtimes.module_file import standing_in_for_main

ZIP_MAGIC = b"PK"
LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How torch.save began a file before PyTorch 1.6, and still does on request."""

READ_FAULTS = (RuntimeError, EOFError, KeyError, ValueError, TypeError, IndexError, AttributeError, OSError)
"""What torch's readers have been seen to raise on a damaged file."""

StateDict = Mapping[str, torch.Tensor]


class ArtifactForm(Enum):
    TORCHSCRIPT = auto()
    EXPORTED = auto()
    """Of torch.export, a .pt2 file."""
    STATE_DICT = auto()
    WHOLE_MODEL = auto()


def read_artifact(path: Path, device: torch.device) -> tuple[ArtifactForm, Any]:
    """Its form, with the script or exported module, the state_dict, or None for what runs code when it is opened: that
    is not done here.

    Raises ModelFailed when the file is missing, empty, damaged, or no PyTorch model.
    """
    _check_looks_like_torch(path)
    if _is_torchscript(path):
        return ArtifactForm.TORCHSCRIPT, _read_torchscript(path, device)
    if _is_exported(path):
        return ArtifactForm.EXPORTED, None if _pickles_in_exported(path) else read_exported(path, device)
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=can_be_mapped(path))
    except pickle.UnpicklingError:
        return ArtifactForm.WHOLE_MODEL, None
    except READ_FAULTS as error:
        raise _damaged(error) from error
    return ArtifactForm.STATE_DICT, as_state_dict(content)


def unpickle_whole_model(path: Path, device: torch.device, module: Any) -> nn.Module | StateDict:
    """Unpickle the file, which runs code from it: only for a file whose administrator allowed that.

    `module` is the imported module file or None. Classes are found under its name and under `__main__`.
    Raises ModelFailed.
    """
    try:
        with standing_in_for_main(module), warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location=device, weights_only=False, mmap=can_be_mapped(path))
    except (ModuleNotFoundError, AttributeError) as error:
        raise ModelFailed(
            f"The model file needs a class that is not here ({_one_line(error)}); attach the Python file that "
            "defines it as the module, under the name it had when the model was saved."
        ) from error
    except (pickle.UnpicklingError, *READ_FAULTS) as error:
        raise _damaged(error) from error
    return content if isinstance(content, nn.Module) else as_state_dict(content)


def read_exported(path: Path, device: torch.device) -> nn.Module:
    """The module of a .pt2 file. Unpickles what it holds pickled, so only for one that is trusted or holds nothing.

    Raises ModelFailed.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            from torch.export.passes import move_to_device_pass  # noqa: PLC0415 # as costly as the rest of torch

            program = torch.export.load(path)
            return cast(nn.Module, move_to_device_pass(program, device).module())
    except (*READ_FAULTS, pickle.UnpicklingError, AssertionError, NotImplementedError) as error:
        raise _damaged(error) from error


def can_be_mapped(path: Path) -> bool:
    """Whether torch.load may map a file's tensors: the kernel shares such pages between hosts, and can drop them.

    They are private: what a model writes into its weights never gets into the file. A file from before PyTorch 1.6
    cannot be mapped; nor can one that was packed anew and deflated, of which torch would take the packed bytes.
    """
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
    except zipfile.BadZipFile:
        return False  # torch says what is wrong with it


def map_weights(network: nn.Module, state: Mapping[str, Any]) -> None:
    """Have a network that has loaded `state` refer to its tensors, which may be mapped from a file, where they are just
    what it made of them.

    Parameters and buffers stay the objects that they are, as `load_state_dict(assign=True)` would not have it: a
    network may know them by other names, too.
    """
    for name, own in network.state_dict(keep_vars=True).items():
        its = state.get(name)
        if not (isinstance(own, torch.Tensor) and isinstance(its, torch.Tensor)):
            continue
        if (own.device, own.dtype, own.shape) == (its.device, its.dtype, its.shape) and torch.equal(own, its):
            own.data = its


def as_state_dict(content: object) -> StateDict:
    """`content`, if it is a state_dict. Raises ModelFailed, which says what it is instead."""
    if not isinstance(content, Mapping):
        what = f"a {type(content).__name__}"
    elif all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()):
        return cast(StateDict, content)
    else:
        what = f"a dict with the keys {some_of(map(str, content))}"
    raise ModelFailed(
        f"The model file holds {what}, not a network or its state_dict; save model.state_dict() alone and attach that."
    )


def some_of(names: Any, limit: int = 4) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def _check_looks_like_torch(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(len(LEGACY_MAGIC))
    except OSError as error:
        raise ModelFailed(f"The model file cannot be read ({error.strerror}); attach it again.") from error
    if not start:
        raise ModelFailed("The model file is empty; save the model again and attach the new file.")
    if start.startswith(ZIP_MAGIC):
        if not zipfile.is_zipfile(path):
            raise ModelFailed("The model file is cut short; copy or save it again and attach the new file.")
    elif start != LEGACY_MAGIC:
        raise ModelFailed(
            "The model file is not a PyTorch model; attach a file written by torch.save, torch.jit.save or "
            "torch.export.save."
        )


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in archive.namelist())


def _is_exported(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/models/model.json") for name in archive.namelist())


def _pickles_in_exported(path: Path) -> bool:
    """Whether opening the file could run code: torch.export.load unpickles constants and sample inputs freely."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("_config.json"):
                    config = json.loads(archive.read(name))["config"]
                    if any(entry.get("use_pickle") is not False for entry in config.values()):
                        return True
                elif name.endswith(".pt"):
                    torch.load(io.BytesIO(archive.read(name)), weights_only=True)
    except pickle.UnpicklingError:
        return True
    except (*READ_FAULTS, zipfile.BadZipFile) as error:
        raise _damaged(error) from error
    return False


def _read_torchscript(path: Path, device: torch.device) -> nn.Module:
    try:
        with warnings.catch_warnings(action="ignore"):  # torch.jit is deprecated; files of users are not
            script = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]  # torch's own gap
            return cast(nn.Module, script)
    except READ_FAULTS as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> ModelFailed:
    return ModelFailed(
        f"The model file is damaged or not a PyTorch model ({type(error).__name__}: {_one_line(error)}); "
        "save it again and attach the new file."
    )


def _one_line(error: Exception) -> str:
    """The first sentence of a message: torch adds paragraphs of advice that does not apply here."""
    return re.split(r"\.\s|\n", str(error).strip(), maxsplit=1)[0][:200]
