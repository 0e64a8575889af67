"""What a model host has to know of a model, as plain values."""

import hashlib
import json
import keyword
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Self

from services.core.catalogue import Attachment, CatalogueEntry


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


def model_spec(entry: CatalogueEntry, attachment: Attachment, path_of: Callable[[str], Path]) -> ModelSpec:
    """What a host needs to know of a catalogue entry with that attachment.

    `path_of` gives the path of a file below models/ by its name.
    """
    artifact, module = attachment.artifact, attachment.module
    positions = {channel.channel_id: position for position, channel in enumerate(entry.input_channels)}
    return ModelSpec(
        model_id=entry.version.model_id,
        runtime=attachment.runtime,
        artifact=path_of(artifact.name) if artifact else None,
        artifact_sha256=artifact.sha256 if artifact else None,
        module=path_of(module.name) if module else None,
        module_sha256=module.sha256 if module else None,
        module_name=module_name_of(module.uploaded_name) if module else None,
        class_name=attachment.class_name,
        allow_pickle=attachment.allow_pickle,
        options=attachment.options,
        structures=tuple(
            # A structure linked to no channel of the model lies on the first one's grid.
            StructureSpec(structure.name, structure.structure_id, positions.get(structure.input_channel_id, 0))
            for structure in entry.version.structures
        ),
        channels=tuple(channel.channel_id for channel in entry.input_channels),
    )


def module_name_of(uploaded_name: str) -> str:
    """The name under which an uploaded Python file is imported: its stem, made an identifier.

    Whole models are pickled with the name of the module they were defined in, so it must be the user's own.
    """
    stem = PurePosixPath(PureWindowsPath(uploaded_name).name).stem
    name = re.sub(r"\W", "_", stem)
    if not name.isidentifier():
        name = f"_{name}"
    return f"{name}_" if keyword.iskeyword(name) else name
