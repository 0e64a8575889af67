"""What half precision cannot hold is computed again in single precision."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services.core.catalogue import RuntimeName
from services.core.model_spec import ModelSpec, StructureSpec
from services.core.volumes import Volume
from tests.runtimes.artifacts import write_source
from tests.runtimes.running import Heard, segmented

SOURCE = """
import torch


class Steep(torch.nn.Module):
    # Both scores of a bright voxel are infinite in half precision, whose greatest number is 65504.
    def __init__(self):
        super().__init__()
        self.scores = torch.nn.Conv3d(1, 2, 1, bias=False)

    def forward(self, batch):
        return self.scores(batch)
"""
AGAIN = "The model's scores are too large for half precision; it runs again in single precision."


WHOLE: dict[str, Any] = {"call": "tensor", "inference": {}}
BY_PATCHES: dict[str, Any] = {"call": "sliding_window", "inference": {"patch": [8, 8, 8]}}


@pytest.mark.parametrize(
    ("call", "precision", "notes"),
    [
        (WHOLE, "float16", [AGAIN]),
        (WHOLE, "float32", []),
        (BY_PATCHES, "float16", [AGAIN]),
        (BY_PATCHES, "float32", [AGAIN]),  # sums of patches wait for the next ones in half precision
    ],
)
def test_scores_beyond_half_precision(call: dict[str, Any], precision: str, notes: list[str], tmp_path: Path) -> None:
    # Given a network whose scores overflow where its structure is
    module = write_source(tmp_path, SOURCE, "steep")
    weights = torch.tensor([200.0, 400.0]).view(2, 1, 1, 1, 1)
    torch.save({"scores.weight": weights}, tmp_path / "steep.pt")
    options = call | {
        "inference": {**call["inference"], "precision": precision, "device": "cpu"},
        "mapping": {"1": 1},
        "ignored_outputs": [0],
    }
    spec = ModelSpec(
        "steep",
        RuntimeName.PYTORCH,
        artifact=tmp_path / "steep.pt",
        module=module,
        module_name="steep",
        options=options,
        structures=(StructureSpec("it", "1"),),
        channels=("CT",),
    )
    voxels = np.full((12, 16, 20), -1000, np.int16)
    voxels[3:7, 4:9, 5:11] = 1000
    heard = Heard()
    # When it segments
    (mask,) = segmented(spec, Volume(voxels, channel_id="CT"), heard=heard)
    # Then the structure is there all the same, and the time line tells why it took two runs
    np.testing.assert_array_equal(mask, voxels > 0)
    assert heard.notes == notes
