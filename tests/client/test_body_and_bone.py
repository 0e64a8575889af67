"""The example model: its regions are the connected ones, and its family is one that the catalogue takes."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services.client.head_phantom import make_head_ct
from services.core.wire.catalogue import decode_family_json

EXAMPLE = Path(__file__).parents[2] / "examples" / "body_and_bone"


@pytest.fixture(scope="module")
def network() -> Any:
    pytest.importorskip("torch")
    specification = importlib.util.spec_from_file_location("body_and_bone_network", EXAMPLE / "network.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def spread(start: NDArray[np.bool_], ground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A flood by one pixel at a time: slow, and plainly right."""
    reached = start & ground
    while True:
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= ground
        if np.array_equal(grown, reached):
            return reached
        reached = grown


def test_floods_reach_what_is_connected_and_no_more(network: Any) -> None:
    random = np.random.default_rng(0)
    for _ in range(100):
        shape = random.integers(1, 25, size=2)
        ground, start = random.random(shape) < 0.6, random.random(shape) < 0.05
        assert np.array_equal(network._flood(start, ground), spread(start, ground))


def test_the_largest_region_is_the_largest(network: Any) -> None:
    random = np.random.default_rng(1)
    for _ in range(100):
        tissue = random.random(random.integers(1, 25, size=2)) < 0.55
        sizes, rest = [0], tissue.copy()
        while rest.any():
            start = np.zeros_like(tissue)
            start.flat[rest.argmax()] = True
            region = spread(start, rest)
            sizes.append(int(region.sum()))
            rest &= ~region
        largest = network._largest_region(tissue)
        assert int(largest.sum()) == max(sizes)


def test_body_is_filled_bone_lies_in_it_and_the_table_does_not(network: Any) -> None:
    volume = make_head_ct((6, 96, 96)).voxels.astype(np.int32)
    model = network.BodyAndBone()
    assert set(model.state_dict()) == {"threshold"}
    body, bone = model(volume)
    assert body.dtype == np.uint8
    assert body.shape == volume.shape
    assert not (bone & ~body).any()
    # The airways of the face are air inside the body.
    assert ((volume < -900) & (body == 1)).any()
    assert body[:, -3:].sum() == 0


def test_an_empty_slice_has_neither(network: Any) -> None:
    assert not network.BodyAndBone()(np.full((1, 8, 8), -1000, np.int32)).any()


def test_the_family_is_one_that_can_be_imported() -> None:
    family = decode_family_json((EXAMPLE / "family.json").read_text(encoding="utf-8"))
    (version,) = family.versions
    assert (family.canonical_name, version.model_id, version.major) == ("Body and Bone", "body-and-bone", 1)
    assert [(structure.name, structure.input_channel_id) for structure in version.structures] == [
        ("Body", "1"),
        ("Bone", "1"),
    ]
