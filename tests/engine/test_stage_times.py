"""What the engine tells of the parts of a run."""

import time
from typing import Any

import pytest
import torch

from services.core.catalogue import RuntimeName
from services.core.checked_options import model_options
from services.core.model_spec import ModelSpec, StructureSpec
from services.worker.engine.model import EngineModel
from tests.deployment import small_volume
from tests.engine.functions import FunctionPredictor
from tests.runtimes.running import Heard, segmented

CALL_SECONDS = 0.2


def slow(batch: torch.Tensor) -> torch.Tensor:
    time.sleep(CALL_SECONDS)  # what a model takes
    return batch > 0


@pytest.mark.parametrize(
    ("preprocessing", "stages"),
    [
        ({}, {"transfer", "preprocess", "forward", "cleanup"}),
        ({"spacing": [2, 2, 2]}, {"transfer", "preprocess", "forward", "place", "cleanup"}),
    ],
    ids=["on its grid", "resampled"],
)
def test_each_part_is_told_and_the_model_s_own_is_the_long_one(preprocessing: dict[str, Any], stages: set[str]) -> None:
    # Given a model that takes its time
    options = {"call": "tensor", "preprocessing": preprocessing}
    spec = ModelSpec("m", RuntimeName.PYTORCH, options=options, structures=(StructureSpec("it", "1"),), channels=("1",))
    model = EngineModel(spec, model_options(RuntimeName.PYTORCH, options), FunctionPredictor(slow))
    # When it runs, and runs again
    runs = [Heard() for _ in range(3)]
    for heard in runs:
        segmented(spec, small_volume(), model=model, heard=heard)
    # Then each run has its own times
    for heard in runs:
        assert set(heard.stages) == stages
        assert heard.stages["forward"] >= CALL_SECONDS
        assert min(heard.stages.values()) >= 0
    # And what the model takes is in its own part alone; the least of some runs, for a busy machine
    least = {stage: min(heard.stages[stage] for heard in runs) for stage in stages}
    assert max(least, key=lambda stage: least[stage]) == "forward"
    assert least["forward"] < 2 * CALL_SECONDS
