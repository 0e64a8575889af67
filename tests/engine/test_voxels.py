"""Rows go to the model in bounded batches, and its answers to the voxels they are of."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from services.core.checked_options import model_options
from services.core.errors import InvalidModel, ModelFailed
from services.core.model_spec import ModelSpec, StructureSpec
from services.worker.engine import features, voxels
from services.worker.engine.model import EngineModel
from tests.runtimes.running import Heard, segmented


@dataclass
class Answering:
    """A predictor that answers with a function of the rows."""

    answer: Callable[[Any], Any]
    batches: list[int] = field(default_factory=list)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __call__(self, batch: Any) -> Any:
        assert batch.dtype == np.float32 and batch.flags.c_contiguous
        self.batches.append(len(batch))
        return self.answer(batch)


def spec_of(count: int = 1, **options: object) -> ModelSpec:
    structures = tuple(StructureSpec(f"structure {index}", str(index)) for index in range(count))
    return ModelSpec("model", "sklearn", structures=structures, options={"features": ["intensity"]} | options)


def model_of(spec: ModelSpec, predictor: Answering) -> EngineModel:
    return EngineModel(spec, model_options("sklearn", spec.options), predictor)


def volume(shape: tuple[int, int, int] = (7, 6, 5)) -> NDArray[np.int16]:
    return np.random.default_rng(3).integers(-100, 100, shape, np.int16)


@pytest.mark.parametrize("rows", [1, 5, 10, 17, 20, 30, 61, 100, 10_000])
@pytest.mark.parametrize("slices", [1, 3, 100])
def test_answers_go_to_their_voxels(rows: int, slices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a model that finds what is above 20, asked for so many rows at a time
    monkeypatch.setattr(voxels, "BATCH_ROWS", rows)
    monkeypatch.setattr(features, "SLAB_VOXELS", slices * 30)
    predictor, heard = Answering(lambda batch: (batch[:, 0] > 20).astype(np.int64)), Heard()
    spec = spec_of()
    # When it segments
    (mask,) = segmented(spec, volume(), model=model_of(spec, predictor), heard=heard)
    # Then each voxel has its own answer, batches were bounded, and progress rose with each of them
    np.testing.assert_array_equal(mask, volume() > 20)
    assert sum(predictor.batches) == volume().size
    assert max(predictor.batches) <= max(rows, 5)
    assert heard.fractions == sorted(heard.fractions)
    assert len(heard.fractions) == len(predictor.batches) + 1
    assert heard.fractions[-2:] == [1.0, 1.0]


def scores(batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Background up to 0, then one structure up to 50, then the other."""
    x = batch[:, 0]
    return np.stack([x <= 0, (x > 0) & (x <= 50), x > 50], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    "answer",
    [scores, lambda batch: scores(batch).argmax(axis=1), lambda batch: scores(batch).argmax(axis=1).tolist()],
    ids=["scores", "labels", "a list of labels"],
)
def test_scores_and_labels_become_structures(answer: Callable[[Any], Any]) -> None:
    spec = spec_of(2)
    first, second = segmented(spec, volume(), model=model_of(spec, Answering(answer)))
    np.testing.assert_array_equal(first, (volume() > 0) & (volume() <= 50))
    np.testing.assert_array_equal(second, volume() > 50)


def test_masks_come_back_from_the_models_grid() -> None:
    # Given a model whose arrays have every axis turned
    spec = spec_of(preprocessing={"orientation": "RAI"})
    predictor = Answering(lambda batch: (batch[:, 0] > 20).astype(np.int64))
    (mask,) = segmented(spec, volume(), model=model_of(spec, predictor))
    np.testing.assert_array_equal(mask, volume() > 20)


BAD: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a row too few": (lambda b: b[1:, 0], r"shape \(209,\) for 210 voxels; expected \(210,\), a label for each"),
    "turned around": (lambda b: scores(b).T, r"shape \(3, 210\) for 210 voxels"),
    "no output": (lambda b: b[:, :0], r"shape \(210, 0\)"),
    "texts": (lambda b: np.full(len(b), "liver"), r"an array of <U5 values"),
    "none": (lambda b: None, r"returned a NoneType"),
    "NaN": (lambda b: scores(b) * np.nan, r"returned NaN"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_answer_is_refused(case: str) -> None:
    answer, message = BAD[case]
    spec = spec_of(2)
    with pytest.raises(ModelFailed, match=message):
        segmented(spec, volume(), model=model_of(spec, Answering(answer)))


@pytest.mark.parametrize("inference", [{"flips": ["width"]}, {"precision": "float16"}])
def test_options_for_networks_are_refused(inference: dict[str, object]) -> None:
    with pytest.raises(InvalidModel, match="call: voxels gives rows, not images to a network"):
        model_options("sklearn", {"features": ["intensity"], "inference": inference})


def test_what_does_not_go_with_the_runtimes_own_call_is_refused_in_a_sentence() -> None:
    with pytest.raises(InvalidModel, match="features are for call: voxels"):
        model_options("pytorch", {"features": ["intensity"]})
