"""What the parts of a model's run take: measured in its host, believed by the worker only as far as they can be."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum


class ModelStage(StrEnum):
    """Parts of the stage `model`. They do not add up to it: what the host does around them is in it too."""

    TRANSFER = "transfer"
    """Voxels to the device."""
    PREPROCESS = "preprocess"
    """Orientation, spacing, and what has to be known of a whole volume for its normalisation."""
    FORWARD = "forward"
    """The model's calls, with the cutting, scaling and blending of patches and the decision between its outputs."""
    PLACE = "place"
    """Masks to the grid of the volume, where that is another one; a bundle's whole postprocessing."""
    CLEANUP = "cleanup"
    """Holes, largest pieces, smallest volumes."""


StageSeconds = Mapping[str, float]
"""What the parts of one run took, by `ModelStage`; nothing where it is one whole."""


class StageTimes:
    """Seconds of each stage, of one run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: ModelStage) -> Iterator[None]:
        """Add what the context takes. A stage inside another's context is taken off that one with `without`."""
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started

    def without(self, stage: ModelStage, part: ModelStage) -> None:
        """Take the seconds of `part`, which was timed inside `stage`, off it."""
        self.seconds[stage] = max(0.0, self.seconds.get(stage, 0.0) - self.seconds.get(part, 0.0))


def believable_stages(told: object, most_seconds: float) -> dict[str, float]:
    """What a host has told of its run, without what cannot be: a model may have it say anything."""
    if not isinstance(told, dict):
        return {}
    believed: dict[str, float] = {}
    for stage in ModelStage:
        seconds = told.get(stage.value)
        if isinstance(seconds, int | float) and math.isfinite(seconds) and 0 <= seconds <= most_seconds:
            believed[stage.value] = float(seconds)
    return believed
