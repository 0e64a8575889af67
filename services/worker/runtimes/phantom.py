"""A box in the middle of each volume: shows that everything around a model works, without a model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.core.catalogue import RuntimeName
from services.core.model_spec import ModelSpec, StructureSpec
from services.core.volumes import Shape, Volume
from services.worker.masks import Box, Masks
from services.worker.model_stages import StageSeconds
from services.worker.watch import Watch

BOX_HALF_PIXELS = 30
"""The box is 60 by 60 pixels in the axial plane: large enough to see on a 512 by 512 slice."""


def middle_box(shape: Shape) -> Box:
    """In a grid of that shape, slices depth//4 to 3·depth//4 (at least one), around the axial centre."""
    depth, height, width = shape
    first_slice = depth // 4
    return slice(first_slice, max(first_slice + 1, 3 * depth // 4)), _middle(height), _middle(width)


def _middle(length: int) -> slice:
    return slice(max(0, length // 2 - BOX_HALF_PIXELS), min(length, length // 2 + BOX_HALF_PIXELS))


@dataclass(frozen=True, slots=True)
class PhantomModel:
    """Draws the same box for every structure, each on its own channel's grid."""

    structures: tuple[StructureSpec, ...]

    def segment(self, volumes: Sequence[Volume], masks: Masks, watch: Watch) -> StageSeconds:
        for index in range(len(self.structures)):
            box = middle_box(masks.shape(index))
            masks.put(index, np.ones([part.stop - part.start for part in box], np.uint8), box)
            watch.report((index + 1) / len(self.structures))
        return {}  # it is one whole


class PhantomRuntime:
    """Always available; looks at no file and no option."""

    name = RuntimeName.PHANTOM.value

    def missing(self) -> str | None:
        return None

    def load(self, spec: ModelSpec) -> PhantomModel:
        return PhantomModel(spec.structures)


RUNTIME = PhantomRuntime()
