"""What half precision cannot hold is computed again in single precision."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services.core.catalogue import RuntimeName
from services.core.errors import ModelFailed
from services.core.model_spec import ModelSpec, StructureSpec
from services.core.volumes import Volume
from tests.runtimes.artifacts import imported, write_source
from tests.runtimes.running import Heard, loaded, segmented

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

VOXELS = np.full((12, 16, 20), -1000, np.int16)
VOXELS[3:7, 4:9, 5:11] = 1000
BRIGHT = Volume(VOXELS, channel_id="CT")


def steep_spec(artifact: Path, call: dict[str, Any], precision: str, **fields: Any) -> ModelSpec:
    options = call | {
        "inference": {**call["inference"], "precision": precision, "device": "cpu"},
        "mapping": {"1": 1},
        "ignored_outputs": [0],
    }
    return ModelSpec(
        "steep",
        RuntimeName.PYTORCH,
        artifact=artifact,
        options=options,
        structures=(StructureSpec("it", "1"),),
        channels=("CT",),
        **fields,
    )


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
    spec = steep_spec(tmp_path / "steep.pt", call, precision, module=module, module_name="steep")
    heard = Heard()
    # When it segments
    (mask,) = segmented(spec, BRIGHT, heard=heard)
    # Then the structure is there all the same, and the time line tells why it took two runs
    np.testing.assert_array_equal(mask, BRIGHT.voxels > 0)
    assert heard.notes == notes


HALVED = SOURCE.replace("bias=False)", "bias=False).to(torch.{dtype})")
CASTING = HALVED.replace("self.scores(batch)", "self.scores(batch.half())")


def saved(folder: Path, source: str, dtype: str = "float16") -> Path:
    """The source of a network whose own weights are in half precision, beside its state_dict."""
    weights = torch.tensor([200.0, 400.0], dtype=getattr(torch, dtype)).view(2, 1, 1, 1, 1)
    torch.save({"scores.weight": weights}, folder / "steep.pt")
    return write_source(folder, source.replace("{dtype}", dtype), "steep")


@pytest.mark.parametrize("call", [WHOLE, BY_PATCHES], ids=["whole", "by patches"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("precision", ["float16", "auto"])
def test_weights_that_are_in_half_precision_themselves(
    precision: str, dtype: str, call: dict[str, Any], tmp_path: Path
) -> None:
    # Given such a network, warm
    module = saved(tmp_path, HALVED, dtype)
    spec = steep_spec(tmp_path / "steep.pt", call, precision, module=module, module_name="steep")
    model: Any = loaded(spec)
    for _ in range(2):  # When it segments, and again
        heard = Heard()
        (mask,) = segmented(spec, BRIGHT, model=model, heard=heard)
        # Then each time it does so in half precision first, and then in single, unless bfloat16 holds its scores
        np.testing.assert_array_equal(mask, BRIGHT.voxels > 0)
        assert heard.notes == ([] if (precision, dtype, call) == ("auto", "bfloat16", WHOLE) else [AGAIN])
        # And its weights are its own afterwards
        assert {str(weights.dtype) for weights in model._predictor.network.parameters()} == {f"torch.{dtype}"}


def test_a_network_that_converts_to_half_precision_by_itself(tmp_path: Path) -> None:
    module = saved(tmp_path, CASTING)
    spec = steep_spec(tmp_path / "steep.pt", WHOLE, "float16", module=module, module_name="steep")
    with pytest.raises(ModelFailed, match=r"cannot be called in single precision \(.*\); have its module convert"):
        segmented(spec, BRIGHT)


def scripted(folder: Path, network: Any) -> Path:
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(network).save(str(folder / "steep.ts"))
    return folder / "steep.ts"


def exported(folder: Path, network: Any) -> Path:
    example = (torch.zeros((1, 1, *BRIGHT.voxels.shape), dtype=torch.float16),)
    torch.export.save(torch.export.export(network, example), folder / "steep.pt2")
    return folder / "steep.pt2"


@pytest.mark.parametrize("precision", ["float16", "auto"])
@pytest.mark.parametrize("compiled", [scripted, exported])
def test_what_is_compiled_in_half_precision(
    compiled: Callable[[Path, Any], Path], precision: str, tmp_path: Path
) -> None:
    with imported(saved(tmp_path, HALVED)) as module:
        network = module.Steep().eval()
        network.load_state_dict(torch.load(tmp_path / "steep.pt"))
        artifact = compiled(tmp_path, network)
    with pytest.raises(ModelFailed, match=r"call float\(\) on the network before it is scripted or exported"):
        segmented(steep_spec(artifact, WHOLE, precision), BRIGHT)


def test_a_constant_in_half_precision_makes_no_network_one(tmp_path: Path) -> None:
    # Given a network in single precision with a buffer in half, whose scores half precision cannot hold
    source = SOURCE.replace(
        "bias=False)", 'bias=False)\n        self.register_buffer("kept", torch.zeros(1, dtype=torch.float16))'
    )
    module = write_source(tmp_path, source, "steep")
    weights = {"scores.weight": torch.tensor([200.0, 400.0]).view(2, 1, 1, 1, 1), "kept": torch.zeros(1).half()}
    torch.save(weights, tmp_path / "steep.pt")
    heard = Heard()
    # When it segments, then it does so in single precision at once
    spec = steep_spec(tmp_path / "steep.pt", WHOLE, "auto", module=module, module_name="steep")
    (mask,) = segmented(spec, BRIGHT, heard=heard)
    np.testing.assert_array_equal(mask, BRIGHT.voxels > 0)
    assert heard.notes == []
