"""Models that are functions, and the engine around them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from services.core.catalogue import RuntimeName
from services.core.checked_options import model_options
from services.core.model_spec import ModelSpec, StructureSpec
from services.core.volumes import Volume
from services.worker.engine.model import EngineModel
from tests.runtimes.running import Heard, segmented


@dataclass
class FunctionPredictor:
    """Answers a batch with a function of it, on the CPU."""

    function: Callable[[Any], Any]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __call__(self, batch: Any) -> Any:
        return self.function(batch)


def drawn(
    function: Callable[[Any], Any],
    volumes: Sequence[Volume],
    options: Mapping[str, Any],
    structures: Sequence[StructureSpec] = (StructureSpec("it", "1"),),
    heard: Heard | None = None,
) -> list[NDArray[np.bool_]]:
    """The masks of a model that is `function`, with these options."""
    channels = tuple(volume.channel_id for volume in volumes)
    spec = ModelSpec("m", RuntimeName.PYTORCH, options=options, structures=tuple(structures), channels=channels)
    whole = model_options(RuntimeName.PYTORCH, options)
    model = EngineModel(spec, whole, FunctionPredictor(function))
    return segmented(spec, *volumes, model=model, heard=heard)
