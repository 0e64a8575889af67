"""Masks share bytes, a bit each, and come back as they were put."""

import numpy as np
import pytest

from services.worker import masks as module
from services.worker.masks import Masks, plane_count

SHAPE = (7, 5, 3)


def filled(structures: int) -> tuple[Masks, list[np.ndarray]]:
    """That many random masks on one grid, with each other's bits around them, and what they are."""
    rng = np.random.default_rng(structures)
    masks = Masks([np.zeros((plane_count(structures), *SHAPE), np.uint8)], [0] * structures)
    wanted = [rng.integers(0, 2, SHAPE).astype(np.uint8) for _ in range(structures)]
    for structure, mask in enumerate(wanted):
        masks.put(structure, mask * 100)  # whatever is not zero
    return masks, wanted


@pytest.mark.parametrize("structures", [1, 3, 8, 9, 17])
def test_each_mask_comes_back(structures: int) -> None:
    masks, wanted = filled(structures)
    for structure, mask in enumerate(wanted):
        np.testing.assert_array_equal(masks.get(structure), mask)


@pytest.mark.parametrize("slab_bytes", [1, 15, 40, 2**20])
def test_slabs_are_the_mask_slices_at_a_time(slab_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given slabs of one slice, two, or all
    monkeypatch.setattr(module, "SLAB_BYTES", slab_bytes)
    masks, wanted = filled(9)
    for structure, mask in enumerate(wanted):
        # When a mask is read slab by slab, Then it is whole, contiguous, and 0 and 1 only
        slabs = [slab.copy() for slab in masks.slabs(structure)]
        assert all(slab.flags.c_contiguous for slab in masks.slabs(structure))
        np.testing.assert_array_equal(np.concatenate(slabs), mask)


def test_bytes_that_a_model_scribbled_on_are_still_0_and_1() -> None:
    masks, _ = filled(1)
    masks.planes[0][...] = 0xFF
    assert all(np.all(slab == 1) for slab in masks.slabs(0))


def test_only_the_part_in_a_box_is_changed() -> None:
    masks, wanted = filled(2)
    box = (slice(1, 3), slice(0, 5), slice(2, 3))
    masks.put(1, np.ones((2, 5, 1)), box)
    wanted[1][box] = 1
    for structure in range(2):
        np.testing.assert_array_equal(masks.get(structure), wanted[structure])
    with pytest.raises(ValueError, match="shape"):
        masks.put(0, np.ones((1, 1, 1)), box)
