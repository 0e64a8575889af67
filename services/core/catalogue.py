"""The catalogue's nouns as frozen values: what clients are told about models, and what runs them.

Enumerations are kept as the integers of the wire, because proto3 enumerations are open: a value that this
version does not know still survives storing and publishing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from services.core.errors import InvalidModelInput
from services.core.volumes import Vector


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment to the nanosecond: datetimes and PostgreSQL stop at microseconds, the wire does not."""

    at: datetime
    """UTC, whole microseconds."""
    nanoseconds: int = 0
    """What is left below the microsecond, 0 to 999."""


@dataclass(frozen=True, slots=True)
class Color:
    """Red, green, blue; 0 to 255 each."""

    red: int = 0
    green: int = 0
    blue: int = 0


@dataclass(frozen=True, slots=True)
class Structure:
    """One anatomical structure that a model version draws."""

    name: str
    structure_id: str = ""
    color: Color | None = None
    structure_type: int = 0
    fma_code: int = 0
    """Foundational Model of Anatomy identifier."""
    input_channel_id: str = ""
    """The input channel on whose grid the mask comes back."""


@dataclass(frozen=True, slots=True)
class ChannelConstraints:
    """What a client should resample a channel to. Spacing in millimetres, dimensions in pixels, (x, y, z)."""

    accepted_modalities: tuple[int, ...] = ()
    spacing_min: Vector | None = None
    spacing_max: Vector | None = None
    dimensions_min: Vector | None = None
    dimensions_max: Vector | None = None
    original_data_required: bool = False
    is_axial: bool = False


@dataclass(frozen=True, slots=True)
class InputChannel:
    """One input channel of a model family."""

    channel_id: str
    constraints: ChannelConstraints | None = None


@dataclass(frozen=True, slots=True)
class PatientConstraints:
    """Which patients a model family is meant for."""

    body_parts: tuple[int, ...] = ()
    gender: int = 0


@dataclass(frozen=True, slots=True)
class FamilyDescription:
    """What a person chooses a model family by."""

    name: str = ""
    description: str = ""
    clinical_domain: str = ""
    anatomical_region: str = ""
    primary_structure: str = ""
    modalities: str = ""
    input_channels: tuple[InputChannel, ...] = ()
    constraints: PatientConstraints | None = None


@dataclass(frozen=True, slots=True)
class RegulatoryFramework:
    """What an authority has said about a model version."""

    framework: str = ""
    status: int = 0
    udi: str = ""
    manufacturer: str = ""
    details_url: str = ""
    release_date: Instant | None = None


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a family, as clients see it. `model_id` is what they put into the path."""

    model_id: str
    description: str = ""
    created_on: Instant | None = None
    structures: tuple[Structure, ...] = ()
    credits_required: float = 0.0
    major: int = 0
    minor: int = 0
    regulatory_frameworks: tuple[RegulatoryFramework, ...] = ()
    language_code: str = ""


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """The versions of one model and what they have in common."""

    canonical_name: str
    description: FamilyDescription | None = None
    versions: tuple[ModelVersion, ...] = ()
    language_code: str = ""

    @property
    def input_channels(self) -> tuple[InputChannel, ...]:
        return self.description.input_channels if self.description else ()


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file below `models/` on the mounted volume. `name` is the server's; `uploaded_name` only a label."""

    name: str
    sha256: str
    size_bytes: int
    uploaded_name: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """What runs a model version: a runtime, its files, and how it is called."""

    runtime: str
    artifact: StoredFile | None = None
    module: StoredFile | None = None
    class_name: str | None = None
    allow_pickle: bool = False
    """Whether the administrator allows unpickling the artifact, which runs code from it."""
    options: dict[str, Any] = field(default_factory=dict)
    time_limit_seconds: int | None = None
    """None: the deployment's default."""


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A model version with what the server knows beyond the wire."""

    family_name: str
    version: ModelVersion
    input_channels: tuple[InputChannel, ...]
    attachment: Attachment | None = None
    enabled: bool = True

    @property
    def runnable(self) -> bool:
        """Whether clients see this version and may use it."""
        return self.enabled and self.attachment is not None


class RuntimeName(StrEnum):
    """The runtimes that this version knows; `Attachment.runtime` stays a string, so that a newer row can be read."""

    PHANTOM = "phantom"
    """A box in the middle of each volume: needs no model file."""
    PYTORCH = "pytorch"
    """A PyTorch network: a state_dict with its class, TorchScript, torch.export, or pickled whole."""
    ONNX = "onnx"
    """An ONNX graph, or a zip of one with its external data."""
    TENSORFLOW = "tensorflow"
    """A SavedModel in a zip, or a Keras model as .keras or .h5."""
    SKLEARN = "sklearn"
    """A scikit-learn classifier of voxels, by skops or pickled."""
    XGBOOST = "xgboost"
    """An XGBoost classifier of voxels, as .json or .ubj."""
    MONAI_BUNDLE = "monai_bundle"
    """A MONAI bundle in a zip, with its own pre- and postprocessing."""


def channel_order(channels: Sequence[InputChannel], given: Sequence[str]) -> list[int]:
    """For each of a model's channels, in order, the position of its volume among the `given` identifiers.

    A model with one channel takes one volume whatever its identifier.

    Raises:
        InvalidModelInput: identifiers do not match one to one.
    """
    wanted = [channel.channel_id for channel in channels]
    if len(wanted) <= 1 and len(given) == 1:
        return [0]
    faults = {
        "does not have": set(given) - set(wanted),
        "needs, but the request lacks,": set(wanted) - set(given),
        "takes only once": {identifier for identifier in given if given.count(identifier) > 1},
    }
    for fault, identifiers in faults.items():
        if identifiers:
            some = ", ".join(f"«{identifier}»" for identifier in sorted(identifiers)[:5])
            expected = ", ".join(f"«{identifier}»" for identifier in wanted) or "one channel of any name"
            raise InvalidModelInput(
                f"The model {fault} channel {some}; send one volume for each of its channels: {expected}."
            )
    return [given.index(identifier) for identifier in wanted]
