"""The shared memory of one job."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services.worker.workspace import ALIGNMENT_BYTES, Workspace
from tests.worker.conditions import left_in_shared_memory, mapped_by_name, named_shared_memory

SHAPES = [(3, 5, 7), (1, 1, 1)]
CHANNEL_OF = [0, 1]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def memory_regions() -> int:
    return Path("/proc/self/maps").read_text(encoding="utf-8").count("segint-workspace")


def test_arrays_have_their_shapes_start_aligned_and_are_zero() -> None:
    with Workspace(SHAPES, [0]) as workspace:
        arrays: list[NDArray[Any]] = [*workspace.inputs, *workspace.masks.planes]
        assert [array.shape for array in arrays] == [*SHAPES, (1, *SHAPES[0]), (0, *SHAPES[1])]
        assert [array.dtype.name for array in arrays] == ["int16", "int16", "uint8", "uint8"]
        for array in arrays:
            assert array.ctypes.data % ALIGNMENT_BYTES == 0
            assert array.flags.c_contiguous and array.flags.writeable
            assert not array.any()


def test_arrays_do_not_overlap() -> None:
    with Workspace(SHAPES, CHANNEL_OF) as workspace:
        arrays: list[NDArray[Any]] = [*workspace.inputs, *workspace.masks.planes]
        for index, array in enumerate(arrays):
            array[...] = index + 1
        assert [set(np.unique(array)) for array in arrays] == [{1}, {2}, {3}, {4}]


def test_what_one_side_writes_the_other_reads() -> None:
    # Given a workspace and the other side's view of it
    with Workspace(SHAPES, CHANNEL_OF) as ours, Workspace.attach(os.dup(ours.fileno()), SHAPES, CHANNEL_OF) as theirs:
        # When each side writes, then the other sees it
        ours.inputs[1][...] = -5
        theirs.masks.planes[0][0, 2, 4, 6] = 1
        assert theirs.inputs[1].item() == -5
        assert ours.masks.get(0)[2, 4, 6] == 1


def test_it_has_no_name_and_leaves_nothing_open() -> None:
    # Given what is open before
    files, segments, mapped = open_files(), named_shared_memory(), mapped_by_name()
    # When many workspaces come and go
    for _ in range(20):
        with Workspace(SHAPES, CHANNEL_OF) as workspace:
            assert mapped_by_name() == mapped
            workspace.inputs[0][...] = 1
    # Then nothing of them is left
    assert open_files() == files
    assert left_in_shared_memory(segments) == set()
    assert memory_regions() == 0


def test_an_array_that_outlives_it_stays_valid_and_then_frees_the_memory() -> None:
    # Given an array kept beyond the workspace
    with Workspace(SHAPES, CHANNEL_OF) as workspace:
        workspace.inputs[0][...] = 1
        kept = workspace.inputs[0][1:]
    # Then it can be read, and the memory goes when it does
    assert kept.sum() == 70
    assert memory_regions() == 1
    del kept
    assert memory_regions() == 0


def test_closing_twice_is_allowed_and_a_closed_one_has_no_descriptor() -> None:
    workspace = Workspace(SHAPES, CHANNEL_OF)
    workspace.close()
    workspace.close()
    with pytest.raises(ValueError, match="closed"):
        workspace.fileno()


def test_the_other_side_cannot_resize_it() -> None:
    with Workspace(SHAPES, CHANNEL_OF) as workspace, pytest.raises(PermissionError) as refusal:
        os.ftruncate(workspace.fileno(), 0)
    assert refusal.value.errno == errno.EPERM


def test_attaching_with_other_shapes_is_refused() -> None:
    before = open_files()
    with Workspace(SHAPES, CHANNEL_OF) as workspace, pytest.raises(ValueError, match="size"):
        Workspace.attach(os.dup(workspace.fileno()), [(300, 5, 7)], [0])
    assert open_files() == before


def test_a_job_without_arrays_has_a_workspace_too() -> None:
    with Workspace([], []) as workspace:
        assert workspace.inputs == []
        assert len(workspace.masks) == 0
