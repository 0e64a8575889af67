"""Run a loaded model without a host: volumes in, one mask per structure out."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.core.model_spec import ModelSpec
from services.core.volumes import Geometry, Volume
from services.worker.masks import Masks, plane_count
from services.worker.model_stages import StageSeconds
from services.worker.runtimes import runtime
from services.worker.runtimes.base import LoadedModel


@dataclass
class Heard:
    """What a run said while it went on, and at its end."""

    fractions: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stages: StageSeconds = field(default_factory=dict)

    def report(self, fraction: float) -> None:
        self.fractions.append(fraction)

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def loaded(spec: ModelSpec) -> LoadedModel:
    """The model of `spec`, in this process."""
    return runtime(spec.runtime).load(spec)


def segmented(
    spec: ModelSpec,
    *arrays: NDArray[np.int16] | Volume,
    model: LoadedModel | None = None,
    heard: Heard | None = None,
) -> list[NDArray[np.bool_]]:
    """The masks that the model draws; an array is a volume at the patient's origin, a millimetre to a voxel."""
    names: Sequence[str] = spec.channels or [""] * len(arrays)
    volumes = [
        array if isinstance(array, Volume) else Volume(array, Geometry(), name)
        for name, array in zip(names, arrays, strict=True)
    ]
    channel_of = [structure.channel_index for structure in spec.structures]
    planes = [
        np.zeros((plane_count(channel_of.count(channel)), *volume.shape), np.uint8)
        for channel, volume in enumerate(volumes)
    ]
    masks = Masks(planes, channel_of)
    heard = heard or Heard()
    heard.stages = (model or loaded(spec)).segment(volumes, masks, heard)
    return [masks.get(structure).astype(bool) for structure in range(len(masks))]
