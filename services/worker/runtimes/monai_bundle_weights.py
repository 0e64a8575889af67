"""The network of a bundle with its weights, by whichever way the bundle brings them.

Imports MONAI, so only a host process imports this.
"""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.networks.utils import copy_model_state
from torch import nn

from services.core.errors import ModelFailed
from services.worker.runtimes.monai_bundle_config import BundleConfiguration, one_line
from services.worker.runtimes.pytorch_artifact import READ_FAULTS, can_be_mapped, map_weights, some_of

NETWORKS = ("evaluator::network", "network", "network_def")
CHECKPOINT_LOADERS = frozenset({"CheckpointLoader"})
OWN_WAYS = ("load_state_dict", "torch.load", "torch.jit.load", "copy_model_state", "load_net_with_metadata")
"""What an expression has in it that loads weights by itself."""


def network_of(configuration: BundleConfiguration, root: Path, device: torch.device) -> nn.Module:
    """In evaluation mode on the device, its weights loaded.

    In this order: as CheckpointLoaders say; as expressions of the configuration do; models/model.pt; models/model.ts,
    which is the network itself, as TorchScript, also where the weights that a CheckpointLoader names are not there.

    Raises ModelFailed.
    """
    part = configuration.first_of(*NETWORKS)
    script = root / "models" / "model.ts"
    loaders = list(configuration.components(CHECKPOINT_LOADERS))
    if part is None:
        if script.is_file():
            return _script(script, device)
        raise ModelFailed(
            "The bundle's configuration has no network_def, and the bundle has no models/model.ts; add one of them."
        )
    for loader, _ in loaders:
        path = _path_of(configuration, loader)
        if not path.is_file():
            if script.is_file():
                return _script(script, device)
            raise _missing(path, root)
    network = configuration.make(part)
    if not isinstance(network, nn.Module):
        raise ModelFailed(f"The bundle's {part} is a {type(network).__name__}; it has to be a network of PyTorch.")
    for loader, _ in loaders:
        _load_checkpoint(configuration, loader, root)
    has_weights = any(True for _ in network.parameters())
    if not loaders and has_weights and not configuration.mentions(*OWN_WAYS):
        weights = root / "models" / "model.pt"
        if weights.is_file():
            _fill(network, _read(weights, root), weights, root)
        elif script.is_file():
            return _script(script, device)
        else:
            raise _missing(weights, root)
    return network.to(device).eval()


def _path_of(configuration: BundleConfiguration, loader: str) -> Path:
    return Path(str(configuration.make(f"{loader}::load_path"))).absolute()


def _load_checkpoint(configuration: BundleConfiguration, loader: str, root: Path) -> None:
    """What MONAI's CheckpointLoader does, whichever device the weights were saved from."""
    path = _path_of(configuration, loader)
    targets: Any = configuration.raw(f"{loader}::load_dict")
    if isinstance(targets, dict):
        targets = {name: configuration.make(f"{loader}::load_dict::{name}") for name in targets}
    else:
        targets = configuration.make(f"{loader}::load_dict")
    checkpoint = _read(path, root)
    if len(targets) == 1 and next(iter(targets)) not in checkpoint:
        checkpoint = {next(iter(targets)): checkpoint}
    strict = bool(configuration.value(f"{loader}::strict", True))
    same_shapes = bool(configuration.value(f"{loader}::strict_shape", True))
    for name, target in targets.items():
        if not isinstance(target, nn.Module):
            continue
        if name not in checkpoint:
            raise ModelFailed(
                f"The bundle's {_relative(path, root)} has no {name!r}, which its CheckpointLoader looks for; it has "
                f"{some_of(map(str, checkpoint))}. Correct load_dict."
            )
        state = checkpoint[name]
        if not same_shapes:
            state = copy_model_state(target, state, inplace=False)[0]
        _fill(target, state, path, root, strict=strict and same_shapes)


def _fill(network: nn.Module, state: Any, path: Path, root: Path, *, strict: bool = True) -> None:
    try:
        network.load_state_dict(state, strict=strict)
    except (*READ_FAULTS, AssertionError) as error:
        raise ModelFailed(
            f"The bundle's {_relative(path, root)} does not fit its network, {type(network).__name__} "
            f"({one_line(error)}); pack the weights and the configuration of one and the same network."
        ) from error
    map_weights(network, state)


def _read(path: Path, root: Path) -> Mapping[str, Any]:
    """A state_dict, or several by name: read as tensors alone, or unpickled where that cannot be, as is allowed."""
    try:
        with warnings.catch_warnings(action="ignore"):
            mapped = can_be_mapped(path)
            try:
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
            except pickle.UnpicklingError:
                content = torch.load(path, map_location="cpu", weights_only=False, mmap=mapped)
    except (pickle.UnpicklingError, ImportError, *READ_FAULTS) as error:
        raise _damaged(path, root, error) from error
    if not isinstance(content, Mapping):
        raise ModelFailed(
            f"The bundle's {_relative(path, root)} holds a {type(content).__name__}, not weights; save the network's "
            "state_dict() there, or a TorchScript archive as models/model.ts."
        )
    return content


def _script(path: Path, device: torch.device) -> nn.Module:
    try:
        with warnings.catch_warnings(action="ignore"):  # torch.jit is deprecated; files of users are not
            script: nn.Module = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]  # torch's gap
    except READ_FAULTS as error:
        raise _damaged(path, path.parents[1], error) from error
    return script.eval()


def _damaged(path: Path, root: Path, error: Exception) -> ModelFailed:
    return ModelFailed(
        f"The bundle's {_relative(path, root)} is damaged or not a PyTorch file ({type(error).__name__}: "
        f"{one_line(error)}); save it again and pack the new file."
    )


def _missing(path: Path, root: Path) -> ModelFailed:
    elsewhere = any((root / f"large_files.{suffix}").is_file() for suffix in ("yml", "yaml"))
    how = "download it as its large_files.yml says, and pack it into the zip" if elsewhere else "pack it into the zip"
    return ModelFailed(f"The bundle has no {_relative(path, root)}, its network's weights; {how}.")


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
