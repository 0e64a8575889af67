"""The library of the engine's sums: compiled for other processors too, and never one of another version."""

import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from services.core.volumes import Volume
from services.worker.engine import compiled
from services.worker.engine.compiled import build as building
from services.worker.engine.compiled.build import SOURCE, TARGETS, NotBuilt, build
from services.worker.engine.sums import Sums
from tests.engine.functions import drawn
from tests.runtimes.running import Heard

ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
"""e_machine of the processors, at byte 18 of an ELF file (System V ABI)."""


@pytest.fixture
def _asked_anew() -> Iterator[None]:
    compiled._loaded.cache_clear()
    yield
    compiled._loaded.cache_clear()


def test_there_is_a_library_for_each_kind_of_processor(tmp_path: Path) -> None:
    made = build(SOURCE, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"libsums-{machine}.so" for machine in TARGETS}
    for path in made:
        machine = path.stem.removeprefix("libsums-")
        assert int.from_bytes(path.read_bytes()[18:20], "little") == ELF_MACHINES[machine]


def test_what_cannot_be_compiled_says_why_and_leaves_what_was_there(tmp_path: Path) -> None:
    source = tmp_path / "sums.c"
    source.write_text("int64_t write_half(;\n", encoding="utf-8")
    (tmp_path / "libsums-x86_64.so").write_bytes(b"before")
    with pytest.raises(NotBuilt, match=r"the compiler failed:\n.*error"):
        build(source, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["libsums-x86_64.so", "sums.c"]
    assert (tmp_path / "libsums-x86_64.so").read_bytes() == b"before"


def test_a_compiler_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "LIMIT_SECONDS", 0.001)
    with pytest.raises(NotBuilt, match="did not end within"):
        build(SOURCE, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("arguments", "status"), [([], 1), (["--optional"], 0)])
def test_an_installation_without_a_compiler_says_what_is_missing(
    arguments: list[str], status: int, tmp_path: Path
) -> None:
    script = tmp_path / "build.py"
    shutil.copy(SOURCE.with_name("build.py"), script)
    ran = subprocess.run(  # without site-packages, so without ziglang
        [sys.executable, "-S", str(script), *arguments], capture_output=True, text=True, check=False
    )
    assert ran.returncode == status
    assert ran.stderr.splitlines()[0] == (
        "The engine's compiled sums are MISSING from this installation: the Python package ziglang is not installed "
        "(extra «dev»)."
    )
    assert "make compiled" in ran.stderr


def test_a_folder_that_may_not_be_written_to_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotBuilt, match="cannot be written: No such file or directory"):
        build(SOURCE, tmp_path / "away")


@pytest.mark.usefixtures("_asked_anew")
@pytest.mark.skipif(platform.machine() not in TARGETS, reason="nothing is compiled for this processor")
@pytest.mark.parametrize("fault", ["was not compiled from the sums.c beside it", "cannot be loaded"])
def test_a_library_that_cannot_be_trusted_is_not_called(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "cannot be loaded":
        (tmp_path / f"libsums-{platform.machine()}.so").write_bytes(b"")
    else:
        build(SOURCE, tmp_path)
        (tmp_path / "sums.c").write_text(f"{SOURCE.read_text(encoding='utf-8')}\n", encoding="utf-8")
        monkeypatch.setattr(compiled, "SOURCE", tmp_path / "sums.c")
    monkeypatch.setattr(compiled, "FOLDER", tmp_path)
    # When a model slides a window, Then its time line says what to do, and PyTorch does it
    heard = Heard()
    options = {"call": "sliding_window", "inference": {"patch": [2, 2, 2]}, "postprocessing": {"decision": "threshold"}}
    (mask,) = drawn(lambda batch: batch, [Volume(np.ones((4, 4, 4), np.int16), channel_id="CT")], options, heard=heard)
    assert mask.all()
    (note,) = heard.notes
    assert note.startswith("The engine's compiled code is not used, so this takes longer: ")
    assert fault in note
    assert note.endswith("; run make compiled.")


@pytest.mark.skipif(not compiled.is_available(), reason="the engine's sums are not compiled for this processor")
def test_where_no_thread_can_be_started_one_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given threads that cannot be started any more, as at a limit of processes
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(compiled, "ENOUGH", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    compiled._threads.cache_clear()
    scores, weights = torch.randn(2, 9, 8, 7), torch.rand(9, 8, 7)
    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        first = Sums(scores, weights).values()
    torch.testing.assert_close(first, scores * weights, rtol=0, atol=0)
    # When they can be again, Then what had been asked of one writes nothing any more
    first.fill_(7.0)
    second = Sums(scores, weights).values()
    torch.testing.assert_close(second, scores * weights, rtol=0, atol=0)
    assert bool((first == 7).all())


@pytest.mark.usefixtures("_asked_anew")
@pytest.mark.parametrize("lacking", ["library", "instructions"])
def test_without_library_or_instructions_pytorch_does_it(
    lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacking == "library":
        monkeypatch.setattr(compiled, "FOLDER", tmp_path)
    else:
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert not compiled.is_available()
    assert not compiled.takes(Sums(torch.zeros(1, 1, 1, 1)))
