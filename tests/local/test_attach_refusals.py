"""What `segint models attach` refuses once it has tried it: told in one line, not published, and no file is left."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from services.client.local.sample import SAMPLE_FAMILY
from services.core.settings import Settings
from tests.local.administrator import MODEL, Administrator, listed
from tests.local.conftest import Said
from tests.runtimes import artifacts, artifacts_onnx, artifacts_voxels


@pytest.fixture(scope="module")
def models(new_settings: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory) -> Administrator:
    """On a catalogue with the sample, which nothing runs."""
    made = Administrator(new_settings(), tmp_path_factory.mktemp("models"))
    assert made("import", SAMPLE_FAMILY).code == 0
    return made


def refused(models: Administrator, file: Path, runtime: str, *arguments: object) -> Said:
    """What attaching the file says, in one line; that nothing came of it is looked at."""
    said = models("attach", MODEL, "--runtime", runtime, "--file", file, *arguments)
    assert (said.code, said.out) == (1, "")
    assert said.err.count("\n") == 1
    assert [row["published"] for row in listed(models)] == [False]
    assert models.files() == []
    return said


def cut_short(folder: Path) -> Path:
    path = whole(artifacts.torchscript(folder).artifact)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def whole(path: Path | None) -> Path:
    assert path is not None
    return path


BAD: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "cut short": ("pytorch", cut_short, "The model file is cut short; copy or save it again and attach the new file."),
    "a pickle that is not allowed": (
        "pytorch",
        lambda folder: whole(artifacts.whole_model(folder).artifact),
        "is a pickle that runs code when it is opened; attach it again with --allow-pickle if you trust it",
    ),
    "ONNX as PyTorch": (
        "pytorch",
        lambda folder: whole(artifacts_onnx.plain(folder).artifact),
        "is not a PyTorch model; attach a file written by torch.save, torch.jit.save or torch.export.save. "
        "It looks like a file for --runtime onnx.",
    ),
    "TorchScript as ONNX": (
        "onnx",
        lambda folder: whole(artifacts.torchscript(folder).artifact),
        "The zip has to hold exactly one .onnx file and holds none; pack the one and its external data. "
        "It looks like a file for --runtime pytorch.",
    ),
    "a booster as PyTorch": (
        "pytorch",
        lambda folder: whole(artifacts_voxels.xgboost_ubj(folder).artifact),
        "is not a PyTorch model; attach a file written by torch.save, torch.jit.save or torch.export.save. "
        "It looks like a file for --runtime xgboost.",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_cannot_work_is_refused_with_its_own_message(
    case: str, models: Administrator, tmp_path: Path
) -> None:
    runtime, make, message = BAD[case]
    said = refused(models, make(tmp_path), runtime)
    assert said.err.startswith("Invalid model: The dry run on a tiny volume failed: The "), said.err
    assert message in said.err


@pytest.mark.parametrize(
    ("runtime", "libraries", "remedy"),
    [
        ("onnx", "onnxruntime", "pip install 'segint[onnx]'"),
        ("sklearn", "skops", "pip install 'segint[sklearn]'"),
        ("xgboost", "xgboost", "pip install 'segint[xgboost]'"),
        ("tensorflow", "tensorflow keras", "pip install 'segint[tensorflow]'"),
        ("monai_bundle", "monai", "pip install 'segint[worker]'"),
        ("pytorch", "torch", "install the torch package"),
    ],
)
def test_an_absent_library_is_told_with_what_to_install(
    runtime: str, libraries: str, remedy: str, models: Administrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a machine on which its library cannot be imported, neither by the dry run nor by its host
    hidden = f"import sys\nsys.modules |= dict.fromkeys({libraries.split()!r})\n"
    (tmp_path / "sitecustomize.py").write_text(hidden, encoding="utf-8")
    search = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(search))
    # When a model of it is attached, Then that is refused at once, with what to install
    model = tmp_path / "model"
    model.write_bytes(b"whatever")
    options = ["--option", 'features=["intensity"]'] if runtime in {"sklearn", "xgboost"} else []
    assert remedy in refused(models, model, runtime, *options).err
