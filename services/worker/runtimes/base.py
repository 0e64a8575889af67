"""The contract between a model host and the library that runs a model.

Arrays have shape (depth, height, width), C order. A runtime is a module that holds one `Runtime` by the name
`RUNTIME`; importing that module must not import the library itself, so that the worker can ask what is missing.
"""

import hashlib
import json
import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Protocol, Self

from services.core.catalogue import InputChannel, Structure
from services.core.errors import InvalidModel, ModelFailed
from services.core.model_options import ModelOptions, model_options
from services.core.volumes import Volume
from services.worker.masks import Masks


@dataclass(frozen=True, slots=True)
class StructureSpec:
    """One structure that a model draws."""

    name: str
    structure_id: str = ""
    channel_index: int = 0
    """The input channel on whose grid the mask lies."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything a host needs to load a model and to know one load from another.

    Two specs are the same load when their `fingerprint` is the same: the digests make it change with the files.
    `options` holds what JSON can hold.
    """

    model_id: str
    runtime: str
    artifact: Path | None = None
    artifact_sha256: str | None = None
    """Hexadecimal. When given, the host refuses an artifact with another digest."""
    module: Path | None = None
    module_sha256: str | None = None
    module_name: str | None = None
    """What `module` is called in sys.modules: see `module_name_of`."""
    class_name: str | None = None
    allow_pickle: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    structures: tuple[StructureSpec, ...] = ()
    channels: tuple[str, ...] = ()
    """ChannelIDs in the order in which volumes come; empty for a model that takes one volume of any name."""

    @property
    def fingerprint(self) -> str:
        """A digest over every field, as hexadecimal."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def to_json(self) -> dict[str, Any]:
        """This spec as values that JSON can hold; `from_json` is its inverse."""
        return {
            "model_id": self.model_id,
            "runtime": self.runtime,
            "artifact": None if self.artifact is None else str(self.artifact),
            "artifact_sha256": self.artifact_sha256,
            "module": None if self.module is None else str(self.module),
            "module_sha256": self.module_sha256,
            "module_name": self.module_name,
            "class_name": self.class_name,
            "allow_pickle": self.allow_pickle,
            "options": dict(self.options),
            "structures": [[s.name, s.structure_id, s.channel_index] for s in self.structures],
            "channels": list(self.channels),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The spec that `to_json` described."""
        artifact, module = values["artifact"], values["module"]
        return cls(
            model_id=values["model_id"],
            runtime=values["runtime"],
            artifact=None if artifact is None else Path(artifact),
            artifact_sha256=values["artifact_sha256"],
            module=None if module is None else Path(module),
            module_sha256=values["module_sha256"],
            module_name=values["module_name"],
            class_name=values["class_name"],
            allow_pickle=values["allow_pickle"],
            options=values["options"],
            structures=tuple(StructureSpec(*structure) for structure in values["structures"]),
            channels=tuple(values["channels"]),
        )


class Watch(Protocol):
    """Who wants to know how a run goes."""

    def report(self, fraction: float) -> None:
        """The fraction of the work that is done, 0 to 1."""
        ...

    def note(self, sentence: str) -> None:
        """Something that a person should know of this run; goes to the job's time line."""
        ...


class LoadedModel(Protocol):
    """A model in memory, ready to run any number of times, one at a time."""

    def segment(self, volumes: Sequence[Volume], masks: Masks, watch: Watch) -> None:
        """Draw every structure of the spec into its mask.

        `volumes` holds one per input channel, in the order of the spec's channels, and is only to be read; `masks` is
        all zero, each mask on the grid of its structure's channel.

        Raises ModelFailed when the model returns what is not a mask; what the model itself raises passes through.
        """
        ...


class Runtime(Protocol):
    """One library that runs models."""

    @property
    def name(self) -> str:
        """Its key in the table of runtimes."""
        ...

    def missing(self) -> str | None:
        """None when the library is installed, else a sentence that names what to install. Imports nothing heavy."""
        ...

    def load(self, spec: ModelSpec) -> LoadedModel:
        """Load a model. Runs the model's code, so it is called in a host process only.

        Raises ModelFailed, with a sentence that names the file or the option that is wrong and what to do.
        """
        ...


def options_of(spec: ModelSpec) -> ModelOptions:
    """The options of a spec, complete. Raises ModelFailed when they are not the runtime's."""
    structures = [Structure(name=structure.name, structure_id=structure.structure_id) for structure in spec.structures]
    channels = [InputChannel(channel_id) for channel_id in spec.channels]
    try:
        return model_options(spec.runtime, spec.options, structures, channels)
    except InvalidModel as error:
        raise ModelFailed(error.details) from error


def module_name_of(uploaded_name: str) -> str:
    """The name under which an uploaded Python file is imported: its stem, made an identifier.

    Whole models are pickled with the name of the module they were defined in, so it must be the user's own.
    """
    stem = PurePosixPath(PureWindowsPath(uploaded_name).name).stem
    name = re.sub(r"\W", "_", stem)
    if not name.isidentifier():
        name = f"_{name}"
    return f"{name}_" if keyword.iskeyword(name) else name
