"""Every way in which a PyTorch model can be wrong has a message of its own, which says what to do."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services.core.errors import ModelFailed
from services.core.model_spec import ModelSpec
from services.worker.runtimes import runtime
from tests.runtimes import artifacts
from tests.runtimes.artifacts import THRESHOLD_SOURCE, spec_of, write_source
from tests.runtimes.running import segmented

VOLUME = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)

TWO_CLASSES = "from torch import nn\nclass Block(nn.Module): ...\nclass Net(nn.Module): ...\n"
NEEDS_ARGUMENT = (
    "from torch import nn\nclass Net(nn.Module):\n    def __init__(self, width):\n        super().__init__()\n"
)


def load(spec: ModelSpec) -> Any:
    return runtime("pytorch").load(spec)


def file_of(folder: Path, content: bytes) -> Path:
    path = folder / "model.pt"
    path.write_bytes(content)
    return path


def saved(folder: Path, content: object) -> Path:
    path = folder / "saved.pt"
    torch.save(content, path)
    return path


def half_of(path: Path | None) -> Path:
    assert path is not None
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def changed_program(folder: Path, name: str, content: bytes) -> Path:
    """A program of torch.export, one of whose members is another."""
    import zipfile

    whole = artifacts.exported(folder).artifact
    assert whole is not None
    changed = folder / "changed.pt2"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(changed, "w") as target:
        for member in source.namelist():
            target.writestr(member, content if member.endswith(name) else source.read(member))
    return changed


def damaged_program(folder: Path) -> Path:
    return changed_program(folder, "/models/model.json", b"{}")


def program_with_a_pickle(folder: Path) -> Path:
    torch.save(Trap(folder / "mark"), folder / "trap.pt")
    return changed_program(folder, "/sample_inputs/model.pt", (folder / "trap.pt").read_bytes())


def hollow_zip(folder: Path) -> Path:
    """A complete zip that says it is a model and lacks what a model needs."""
    import zipfile

    path = folder / "hollow.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/version", "3\n")
    return path


def weights(folder: Path, source: str, name: str = "unet", **fields: Any) -> ModelSpec:
    return spec_of(saved(folder, {}), write_source(folder, source, name), **fields)


def whole_without_module(folder: Path) -> ModelSpec:
    return spec_of(artifacts.whole_model(folder).artifact, allow_pickle=True)


def whole_with_other_module(folder: Path) -> ModelSpec:
    artifact = artifacts.whole_model(folder).artifact
    return spec_of(artifact, write_source(folder, "Other = 1\n"), allow_pickle=True)


BAD: dict[str, tuple[Callable[[Path], ModelSpec], str]] = {
    "no artifact": (lambda f: spec_of(None), r"no model file; attach one"),
    "artifact is not there": (lambda f: spec_of(f / "gone.pt"), r"cannot be read \(No such file.*attach it again"),
    "no structure": (lambda f: spec_of(artifacts.torchscript(f).artifact, count=0), r"declares no structure"),
    "empty": (lambda f: spec_of(file_of(f, b"")), r"is empty; save the model again"),
    "a text": (lambda f: spec_of(file_of(f, b"hello, model")), r"is not a PyTorch model; attach a file written by"),
    "a plain pickle": (lambda f: spec_of(file_of(f, pickle.dumps({"a": 1}))), r"is not a PyTorch model"),
    "truncated": (lambda f: spec_of(half_of(artifacts.state_dict(f).artifact)), r"is cut short"),
    "truncated script": (lambda f: spec_of(half_of(artifacts.torchscript(f).artifact)), r"is cut short"),
    "truncated program": (lambda f: spec_of(half_of(artifacts.exported(f).artifact)), r"is cut short"),
    "damaged program": (lambda f: spec_of(damaged_program(f)), r"damaged or not a PyTorch model"),
    "program with a pickle": (
        lambda f: spec_of(program_with_a_pickle(f)),
        r"runs code when it is opened; attach it again with --allow-pickle",
    ),
    "hollow": (lambda f: spec_of(hollow_zip(f)), r"damaged or not a PyTorch model"),
    "a tensor": (lambda f: spec_of(saved(f, torch.zeros(2))), r"holds a Tensor, not a network or its state_dict"),
    "a checkpoint": (
        lambda f: spec_of(saved(f, {"state_dict": {}, "epoch": 3})),
        r"a dict with the keys state_dict, epoch, not.*save model\.state_dict\(\) alone",
    ),
    "pickle not allowed": (
        lambda f: spec_of(artifacts.whole_model(f).artifact, write_source(f, THRESHOLD_SOURCE)),
        r"attach it again with --allow-pickle if you trust it, or save a state_dict",
    ),
    "pickled, no module": (whole_without_module, r"needs a class that is not here.*unet.*attach the Python file"),
    "pickled, other module": (whole_with_other_module, r"needs a class that is not here.*Threshold"),
    "state_dict, no module": (
        lambda f: spec_of(artifacts.state_dict(f).artifact),
        r"is a state_dict, which needs its network; attach the Python file",
    ),
    "state_dict, module is not there": (
        lambda f: spec_of(saved(f, {}), f / "gone.py"),
        r"module file gone\.py cannot be read",
    ),
    "syntax error": (lambda f: weights(f, "x = 1\ndef f(:\n"), r"unet\.py is not valid Python in line 2: "),
    "null bytes": (lambda f: weights(f, "x = 1\0"), r"unet\.py is not valid Python"),
    "module raises": (
        lambda f: weights(f, "x = 1\nraise OSError('no licence')\n"),
        r"unet\.py raised OSError: no licence in line 2; it has to be importable by itself",
    ),
    "module exits": (lambda f: weights(f, "import sys\nsys.exit(3)\n"), r"unet\.py raised SystemExit: 3 in line 2"),
    "module needs another": (
        lambda f: weights(f, "import monai_x\n"),
        r"ModuleNotFoundError: No module named 'monai_x'",
    ),
    "module named as one in use": (lambda f: weights(f, TWO_CLASSES, "torch"), r"torch\.py has the name of a Python"),
    "two classes, none named": (lambda f: weights(f, TWO_CLASSES), r"so name its class.*are: Block, Net\."),
    "no class": (lambda f: weights(f, "x = 1\n"), r"so name its class.*are: none\."),
    "no such class": (
        lambda f: weights(f, TWO_CLASSES, class_name="UNet"),
        r"no class 'UNet' derived from torch\.nn\.Module; attach the model again with one of: Block, Net\.",
    ),
    "class is a function": (lambda f: weights(f, "def Net(): ...\n", class_name="Net"), r"no class 'Net'"),
    "class needs an argument": (
        lambda f: weights(f, NEEDS_ARGUMENT),
        r"Net cannot be made without arguments \(TypeError.*'width'.*option class_arguments",
    ),
    "wrong class arguments": (
        lambda f: weights(f, NEEDS_ARGUMENT, options={"class_arguments": {"depth": 3}}),
        r"Net cannot be made with the arguments depth \(TypeError",
    ),
    "class arguments are a list": (
        lambda f: weights(f, NEEDS_ARGUMENT, options={"class_arguments": [3]}),
        r"class_arguments: Input should be a valid dictionary",
    ),
    "keys missing": (lambda f: weights(f, THRESHOLD_SOURCE), r"does not fit the class Threshold: it lacks bias;"),
    "keys too much": (
        lambda f: spec_of(
            saved(f, {"bias": torch.zeros(1), "module.a": torch.zeros(1)}), write_source(f, THRESHOLD_SOURCE)
        ),
        r"it has module\.a too much",
    ),
    "sizes differ": (
        lambda f: spec_of(saved(f, {"bias": torch.zeros(7)}), write_source(f, THRESHOLD_SOURCE)),
        r"does not fit the class Threshold \(.*size mismatch for bias",
    ),
    "unknown option": (lambda f: spec_of(saved(f, {}), options={"devise": "cuda"}), r"devise: there is no such option"),
    "device beyond the last": (
        lambda f: spec_of(saved(f, {}), options={"inference": {"device": "cuda:99"}}),
        r"'cuda:99' is not available to this worker, which has cpu",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_model_is_refused_with_its_own_message(case: str, tmp_path: Path) -> None:
    make, message = BAD[case]
    with pytest.raises(ModelFailed, match=message) as failure:
        load(make(tmp_path))
    assert failure.value.details.endswith(".")
    assert "\n" not in failure.value.details


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_without_cuda_is_an_error(tmp_path: Path) -> None:
    spec = spec_of(artifacts.torchscript(tmp_path).artifact, options={"inference": {"device": "cuda"}})
    with pytest.raises(ModelFailed, match=r"'cuda' is not available to this worker, which has cpu"):
        load(spec)


class Trap:
    """Pickles into a call that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_refused_pickle_has_not_run(tmp_path: Path, zipped: bool) -> None:
    # Given a model file that runs code when it is unpickled, and a module that does when it is imported
    mark, other_mark = tmp_path / "mark", tmp_path / "other mark"
    torch.save(Trap(mark), tmp_path / "trap.pt", _use_new_zipfile_serialization=zipped)
    source = write_source(tmp_path, f"open({str(other_mark)!r}, 'w').close()\n")
    # When it is loaded without leave to unpickle
    with pytest.raises(ModelFailed, match="--allow-pickle"):
        load(spec_of(tmp_path / "trap.pt", source))
    # Then neither has run
    assert not mark.exists()
    assert not other_mark.exists()


@pytest.mark.parametrize("content", [{"a": 1}, [1, 2]])
def test_an_allowed_pickle_has_to_hold_a_network(tmp_path: Path, content: object) -> None:
    path = saved(tmp_path, {"trap": Trap(tmp_path / "mark"), "content": content})
    with pytest.raises(ModelFailed, match=r"holds a dict with the keys trap, content, not a network"):
        load(spec_of(path, allow_pickle=True))


ANSWERS: dict[str, tuple[str, int, str]] = {
    "a string": ("'mask'", 1, r"returned a str; it has to return an array or tensor"),
    "none": ("None", 1, r"returned a NoneType;"),
    "an empty list": ("[]", 1, r"returned a list;"),
    "objects": ("volume.astype(object)", 1, r"an array of object values"),
    "texts": ("volume.astype(str)", 1, r"an array of <U11 values"),
    "complex": ("torch.zeros(volume.shape, dtype=torch.complex64)", 1, r"an array of torch.complex64 values"),
    "cut off": ("volume[1:]", 1, r"shape \(1, 3, 4\); expected \(1, outputs, 2, 3, 4\), the shape of its"),
    "too many axes": ("volume[None, None, None]", 1, r"shape \(1, 1, 1, 2, 3, 4\); expected"),
    "labels of nobody": ("volume % 5", 2, r"labels 3, 4, which belong to no structure; it has 'structure 0' \(1\)"),
    "a mask too much": ("np.stack([volume] * 4)", 2, r"4 outputs for 'structure 0'.*outputs 2, 3 without a structure"),
    "one mask too much": ("np.stack([volume] * 3)", 2, r"3 outputs for 'structure 0'.*output 2 without a structure"),
    "a mask too few": ("np.stack([volume > 0] * 2)", 3, r"2 outputs for .*: no output for structure 2\. "),
    "array with NaN": ("np.where(volume < 5, np.nan, 0)", 1, r"returned NaN in 5 voxels"),
    "tensor with NaN": ("torch.full(volume.shape, float('nan'))", 1, r"returned NaN in 24 voxels"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_what_is_no_mask_is_refused_with_its_own_message(case: str, tmp_path: Path) -> None:
    expression, count, message = ANSWERS[case]
    spec = artifacts.answering(tmp_path, expression, count)
    model = load(spec)
    with pytest.raises(ModelFailed, match=message):
        segmented(spec, VOLUME, model=model)


@pytest.mark.parametrize(
    "expression",
    [
        "volume > 3",
        "(volume > 3).astype(np.float16)",
        "torch.from_numpy(volume) > 3",
        "(torch.from_numpy(volume) > 3).to(torch.bfloat16)",
        "(torch.from_numpy(volume) > 3).double().mul(-7)",
        "torch.nn.Parameter((torch.from_numpy(volume) > 3).float())",
        "(torch.from_numpy(volume) > 3).to_sparse()",
        "np.asfortranarray(volume > 3)",
        "np.ma.masked_array(volume > 3)",
    ],
)
def test_arrays_and_tensors_of_any_number_are_masks(expression: str, tmp_path: Path) -> None:
    (mask,) = segmented(artifacts.answering(tmp_path, expression), VOLUME)
    np.testing.assert_array_equal(mask, VOLUME > 3)


def test_a_stack_is_taken_apart_in_the_declared_order(tmp_path: Path) -> None:
    first, second = segmented(artifacts.answering(tmp_path, "np.stack([volume > 3, volume > 9])", 2), VOLUME)
    np.testing.assert_array_equal(first, VOLUME > 3)
    np.testing.assert_array_equal(second, VOLUME > 9)


def test_a_network_runs_in_evaluation_mode_without_gradients(tmp_path: Path) -> None:
    expression = "volume * (not self.training and torch.is_inference_mode_enabled())"
    (mask,) = segmented(artifacts.answering(tmp_path, expression), VOLUME)
    np.testing.assert_array_equal(mask, VOLUME != 0)
