"""Outputs to structures: whatever form an answer has, and a sentence that names both where they do not fit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from services.core.errors import ModelFailed
from services.core.model_spec import StructureSpec
from services.core.volumes import Volume
from tests.engine.functions import drawn

LIVER, SPLEEN, CORD = StructureSpec("Liver", "l"), StructureSpec("Spleen", "s"), StructureSpec("Cord", "c")
VALUES = np.arange(4 * 3 * 5, dtype=np.int16).reshape(4, 3, 5) % 4
VOLUME = Volume(VALUES, channel_id="CT")
"""Values 0 to 3 in turn, so that a voxel's value says where it should go."""


def one_hot(batch: Tensor, count: int = 4) -> Tensor:
    return torch.stack([(batch[:, 0] == value).float() for value in range(count)], dim=1)


def masks_of(
    network: Callable[[Tensor], Any], structures: tuple[StructureSpec, ...], **options: Any
) -> list[list[int]]:
    """Which values each structure got."""
    masks = drawn(network, [VOLUME], {"call": "tensor", **options}, structures)
    for mask in masks:  # all voxels of a value or none
        assert {*VALUES[mask]} & {*VALUES[~mask]} == set()
    return [sorted({int(value) for value in VALUES[mask]}) for mask in masks]


@pytest.mark.parametrize(
    "network",
    [
        one_hot,
        lambda batch: one_hot(batch).numpy(),
        lambda batch: [one_hot(batch), "deep supervision"],
        lambda batch: one_hot(batch)[0],
        lambda batch: one_hot(batch)[:, 1:],
        lambda batch: one_hot(batch)[:, 1:].bool(),
        lambda batch: one_hot(batch)[:, 1:].numpy().astype(">f4"),
        lambda batch: batch[:, 0].long(),
        lambda batch: batch[0, 0].byte(),
        lambda batch: batch.int(),
        lambda batch: {"l": one_hot(batch)[:, 1], "s": one_hot(batch)[:, 2], "c": one_hot(batch)[0, 3]},
        lambda batch: {"c": one_hot(batch)[:, 3:], "Liver": one_hot(batch)[:, 1:2], "Spleen": one_hot(batch)[0, 2]},
    ],
    ids=[
        "channels and background",
        "an ndarray",
        "the first of several",
        "without a batch",
        "channels",
        "boolean",
        "big-endian",
        "labels",
        "labels without a batch",
        "labels with a channel",
        "dict by ID",
        "dict by name",
    ],
)
def test_every_form_of_answer_is_understood(network: Callable[[Tensor], Any]) -> None:
    assert masks_of(network, (LIVER, SPLEEN, CORD)) == [[1], [2], [3]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"mapping": {"l": 3, "s": 1, "Cord": 2}}, [[3], [1], [2]]),
        ({"mapping": {"l": [1, 2], "s": 3, "c": 0}}, [[1, 2], [3], [0]]),
        ({"mapping": {"l": 1, "s": 1, "c": 2}, "ignored_outputs": [3]}, [[1], [1], [2]]),
        ({"mapping": {"l": 2, "s": 2, "c": 2}, "ignored_outputs": "rest"}, [[2], [2], [2]]),
    ],
)
@pytest.mark.parametrize("network", [one_hot, lambda batch: batch[:, 0].long()], ids=["scores", "labels"])
def test_outputs_and_labels_are_mapped(network: Any, options: dict[str, Any], expected: list[list[int]]) -> None:
    assert masks_of(network, (LIVER, SPLEEN, CORD), **options) == expected


def test_the_background_is_never_a_structure_by_itself() -> None:
    for decision in ("auto", "argmax"):
        options = {"ignored_outputs": "rest", "postprocessing": {"decision": decision}}
        assert masks_of(one_hot, (LIVER, SPLEEN), **options) == [[1], [2]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16])
def test_masks_with_a_background_are_understood_where_the_options_say_so(dtype: torch.dtype) -> None:
    options = {"postprocessing": {"decision": "argmax"}}
    assert masks_of(lambda batch: one_hot(batch, 3).to(dtype), (LIVER, SPLEEN), **options) == [[1], [2]]


def test_there_is_room_for_the_last_of_many_labels() -> None:
    # Given as many classes as a byte, or half precision, cannot count
    def network(batch: Tensor) -> Tensor:
        scores = torch.zeros((1, 3000, *batch.shape[2:]), dtype=torch.uint8)
        scores[:, -1] = batch[:, 0] == 2
        return scores

    # Then the last one is found
    options = {"postprocessing": {"decision": "argmax"}, "mapping": {"l": 2999, "s": 257}, "ignored_outputs": "rest"}
    assert masks_of(network, (LIVER, SPLEEN), **options) == [[2], []]


def test_many_structures_keep_apart() -> None:
    structures = tuple(StructureSpec(f"s{value}", str(value)) for value in range(19))
    volume = Volume(np.arange(20 * 4, dtype=np.int16).reshape(4, 4, 5) % 20, channel_id="CT")
    masks = drawn(lambda batch: batch[:, 0].int(), [volume], {"call": "tensor"}, structures)
    for value, mask in enumerate(masks):
        np.testing.assert_array_equal(mask, volume.voxels == value + 1)


@pytest.mark.parametrize(
    ("postprocessing", "expected"),
    [
        ({}, [[1, 2, 3]]),  # above 0.5
        ({"threshold": 1.5, "decision": "threshold"}, [[2, 3]]),
        ({"activation": "sigmoid", "threshold": 0.9, "decision": "threshold"}, [[3]]),  # sigmoid(2) = 0.88
        ({"decision": "labels"}, [[1, 2, 3]]),
    ],
)
def test_one_output_is_decided_as_said(postprocessing: dict[str, Any], expected: list[list[int]]) -> None:
    assert masks_of(lambda batch: batch, (LIVER,), postprocessing=postprocessing) == expected


def test_softmax_and_overlapping_structures() -> None:
    # Two outputs with the same score share one half each: both pass 0.4
    options = {"postprocessing": {"activation": "softmax", "threshold": 0.4, "decision": "threshold"}}
    assert masks_of(lambda batch: batch.repeat(1, 2, 1, 1, 1), (LIVER, SPLEEN), **options) == [[0, 1, 2, 3]] * 2
    # Argmax gives each voxel to one, whatever the activation
    options = {"postprocessing": {"activation": "softmax", "decision": "argmax"}}
    network = lambda batch: torch.cat([1 - batch, batch - 1, 3 * batch - 6], dim=1)  # noqa: E731
    assert masks_of(network, (LIVER, SPLEEN), **options) == [[2], [3]]


@pytest.mark.parametrize(
    ("network", "options", "said"),
    [
        (one_hot, {}, "4 outputs for 'Liver' .*, 'Spleen' .*: output 3 without a structure. Declare"),
        (lambda b: one_hot(b, 3).int(), {}, "3 outputs for 'Liver' .*: output 2 without a structure. .* to argmax"),
        (lambda b: one_hot(b, 3).bool(), {}, "3 outputs for 'Liver' .*: output 2 without a structure"),
        (lambda b: one_hot(b, 1), {}, "1 output for 'Liver' .* no output for Spleen"),
        (one_hot, {"mapping": {"l": 1, "s": 9}, "ignored_outputs": "rest"}, r"'Spleen' \(9\): no output for Spleen"),
        (one_hot, {"mapping": {"l": 1, "s": 2}}, "output 3 without a structure"),
        (one_hot, {"postprocessing": {"decision": "labels"}}, "4 outputs; labels are one"),
        (lambda b: b[:, 0].long(), {}, r"labels 3, which belong to no structure; it has 'Liver' \(1\), 'Spleen' \(2\)"),
        (lambda b: b[:, 0].long() - 1, {}, "labels from -1 to 2"),
        (lambda b: b[:, 0].long() * 5000, {}, "labels from 0 to 15000"),
        (lambda b: b / 2, {"postprocessing": {"decision": "labels"}}, "labels are not whole numbers"),
        (lambda b: b.repeat(1, 2, 1, 1, 1) * float("nan"), {}, "NaN in 120 voxels"),
        (lambda b: {"l": b}, {}, "no mask for Spleen; its dict has to have exactly the keys l, s"),
        (lambda b: {"l": b, "s": b, "x": b}, {}, "masks for x, which the model does not declare"),
        (lambda b: {"l": one_hot(b), "s": b}, {}, "4 masks for 'Liver'"),
        (lambda b: b[..., 1:], {}, r"shape \(1, 1, 4, 3, 4\); expected \(1, outputs, 4, 3, 5\)"),
        (lambda b: b[..., 0], {}, r"shape \(1, 1, 4, 3\); expected"),
        (lambda b: "mask", {}, "returned a str"),
        (lambda b: None, {}, "returned a NoneType"),
        (lambda b: torch.complex(b, b), {}, "torch.complex64 values"),
    ],
)
def test_what_does_not_fit_names_both_sides(network: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelFailed, match=said):
        masks_of(network, (LIVER, SPLEEN), **options)


def test_an_organ_that_is_not_there_is_an_empty_mask() -> None:
    masks = drawn(lambda batch: torch.zeros_like(batch).int(), [VOLUME], {"call": "tensor"}, (LIVER, SPLEEN))
    assert [mask.sum() for mask in masks] == [0, 0]
