"""Weights are mapped from their file, not copied, where the file and the network allow it; nothing else changes."""

import gc
import hashlib
import multiprocessing
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services.core.model_spec import ModelSpec
from tests.runtimes.artifacts import imported, spec_of, write_source
from tests.runtimes.artifacts_monai_bundle import (
    ABOVE_HALF,
    CHANNEL_FIRST,
    INVERT,
    LOAD,
    SAVE,
    SCALE,
    SIGMOID,
    bundle_spec,
    configuration,
    packed,
    write_bundle,
)
from tests.runtimes.running import loaded, segmented

SOURCE = '''
import torch


class Weighty(torch.nn.Module):
    """What is above zero, as all of its weights, which are ones, have a say in it; writes into them when it is told."""

    def __init__(self, count=4, writes=False):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.zeros(count) + 2)
        self.writes = writes

    def forward(self, x):
        says = self.weights.mean()
        if self.writes:
            with torch.no_grad():
                self.weights.fill_(-1)
        return x * says if float(says) == 1 else x * 0 - 1
'''
STUBBORN = (
    SOURCE
    + """
    def load_state_dict(self, state_dict, strict=True):
        return super().load_state_dict(state_dict, strict)
"""
)
TWICE = SOURCE.replace("        self.writes = writes", "        self.writes = writes\n        self.same = self.weights")
MANY = 2**24
MANY_BYTES = 4 * MANY
VOXELS = np.arange(-511, 513, 2, dtype=np.int16).reshape(8, 8, 8)
TENSOR: dict[str, Any] = {"call": "tensor", "inference": {"device": "cpu"}}

Make = Callable[..., ModelSpec]
Save = Callable[[Any, Path], None]


def as_torch_saves(content: Any, path: Path) -> None:
    torch.save(content, path)


def as_before_1_6(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def deflated(content: Any, path: Path) -> None:
    """As a person packs anew what another unpacked."""
    torch.save(content, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(name, member)


def of_ones(count: int) -> dict[str, torch.Tensor]:
    return {"weights": torch.ones(count)}


def state_dict(
    folder: Path, save: Save = as_torch_saves, *, count: int = 4, writes: bool = False, source: str = SOURCE
) -> ModelSpec:
    save(of_ones(count), folder / "weighty.pt")
    module = write_source(folder, source, "weighty")
    options = TENSOR | {"class_arguments": {"count": count, "writes": writes}}
    return spec_of(folder / "weighty.pt", module, options=options)


def whole_model(folder: Path, save: Save = as_torch_saves, *, count: int = 4, writes: bool = False) -> ModelSpec:
    module = write_source(folder, SOURCE, "weighty")
    with imported(module) as weighty:
        network = weighty.Weighty(count, writes)
        network.load_state_dict(of_ones(count))
        save(network, folder / "weighty.pt")
    return spec_of(folder / "weighty.pt", module, allow_pickle=True, options=TENSOR)


def bundle(
    folder: Path,
    save: Save = as_torch_saves,
    *,
    count: int = 4,
    writes: bool = False,
    source: str = SOURCE,
    **other: Any,
) -> ModelSpec:
    network = {"_target_": "own_code.weighty.Weighty", "count": count, "writes": writes}
    afterwards = (SIGMOID, INVERT, ABOVE_HALF, SAVE)
    root = write_bundle(folder, configuration(network, [LOAD, CHANNEL_FIRST, SCALE], afterwards, **other), None)
    save(of_ones(count), root / "models" / "model.pt")
    (root / "own_code").mkdir()
    (root / "own_code" / "__init__.py").touch()
    (root / "own_code" / "weighty.py").write_text(source, encoding="utf-8")
    return bundle_spec(packed(root))


KINDS: dict[str, Make] = {"state_dict": state_dict, "whole model": whole_model, "bundle": bundle}


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary directory, as a host has one of its own."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    gc.collect()  # a bundle takes its modules with it


@pytest.fixture(scope="module")
def fresh() -> Iterator[Executor]:
    """A process that has loaded no model yet."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        yield executor


def resident() -> tuple[int, int]:
    """Bytes of this process alone, and of files that it has mapped."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    own, *mapped = (
        int(re.findall(rf"{name}:\s+(\d+) kB", text)[0]) * 1024 for name in ("RssAnon", "RssFile", "RssShmem")
    )
    return own, sum(mapped)


def memory_of(small: ModelSpec, large: ModelSpec) -> tuple[int, int]:
    """By how much both grow while the large model is loaded and runs; the small one has the libraries imported."""
    segmented(small, VOXELS)
    for name in ("weighty", "own_code.weighty", "own_code"):
        sys.modules.pop(name, None)
    gc.collect()
    before = resident()
    model = loaded(large)
    [mask] = segmented(large, VOXELS, model=model)
    after = resident()
    assert np.array_equal(mask, VOXELS > 0)
    sys.modules.pop("weighty", None)
    return after[0] - before[0], after[1] - before[1]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_take_no_memory_of_their_own(kind: str, tmp_path: Path, fresh: Executor) -> None:
    # Given a model with 64 MiB of weights
    for folder in ("small", "large"):
        (tmp_path / folder).mkdir()
    small, large = KINDS[kind](tmp_path / "small"), KINDS[kind](tmp_path / "large", count=MANY)
    # When a process loads and runs it
    own, mapped = fresh.submit(memory_of, small, large).result()
    # Then they are pages of the file
    assert own < MANY_BYTES / 4
    assert mapped > MANY_BYTES * 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_model_writes_into_its_weights_stays_its_own(kind: str, tmp_path: Path, scratch: Path) -> None:
    # Given a model that does so, in weights that are mapped
    spec = KINDS[kind](tmp_path, count=2**16, writes=True)
    model = loaded(spec)
    assert spec.artifact is not None
    [file] = scratch.rglob("model.pt") if kind == "bundle" else [spec.artifact]
    before = hashlib.sha256(file.read_bytes()).digest()
    # When it runs twice, then it finds in the second run what it wrote in the first
    assert np.array_equal(segmented(spec, VOXELS, model=model)[0], VOXELS > 0)
    assert not segmented(spec, VOXELS, model=model)[0].any()
    # And its file is as it was
    assert hashlib.sha256(file.read_bytes()).digest() == before


@pytest.mark.parametrize("save", [as_before_1_6, deflated])
@pytest.mark.parametrize("kind", KINDS)
def test_files_that_cannot_be_mapped_are_read(kind: str, save: Save, tmp_path: Path) -> None:
    spec = KINDS[kind](tmp_path, save, count=2**16)
    assert np.array_equal(segmented(spec, VOXELS)[0], VOXELS > 0)


@pytest.mark.parametrize("make", [state_dict, bundle])
def test_a_network_may_load_its_weights_in_its_own_way(make: Make, tmp_path: Path) -> None:
    spec = make(tmp_path, source=STUBBORN)
    assert np.array_equal(segmented(spec, VOXELS)[0], VOXELS > 0)


@pytest.mark.parametrize("make", [state_dict, bundle])
def test_weights_that_a_network_also_knows_otherwise_are_its_weights(make: Make, tmp_path: Path) -> None:
    # Given a network that uses them from a list, of which torch knows nothing
    source = SOURCE.replace(
        "        self.writes = writes", "        self.writes = writes\n        self.listed = [self.weights]"
    ).replace("self.weights.mean()", "self.listed[0].mean()")
    # Then they are those of the file
    assert np.array_equal(segmented(make(tmp_path, source=source), VOXELS)[0], VOXELS > 0)


def test_weights_with_two_names_of_which_the_file_has_one(tmp_path: Path) -> None:
    # Given a bundle whose network uses its weights by a name that the file does not have
    loader = {
        "_target_": "CheckpointLoader",
        "load_path": "$@bundle_root + '/models/model.pt'",
        "load_dict": {"model": "@network"},
        "strict": False,
    }
    source = TWICE.replace("self.weights.mean()", "self.same.mean()")
    spec = bundle(tmp_path, source=source, checkpointloader=loader)
    # Then it has what the file has by the other
    assert np.array_equal(segmented(spec, VOXELS)[0], VOXELS > 0)
