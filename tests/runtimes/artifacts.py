"""Writes the files that a user of PyTorch would upload. Needs torch."""

import runpy
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch

from services.core.model_spec import ModelSpec, StructureSpec
from services.worker.runtimes.module_file import import_module_file

THRESHOLD_SOURCE = '''
import numpy as np
import torch
from torch import nn


class Threshold(nn.Module):
    """Everything above the bias, by the predecessor's convention: an int32 ndarray in, the same shape out."""

    def __init__(self, count: int = 1) -> None:
        super().__init__()
        self.count = count
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, volume):
        if type(volume) is not np.ndarray or volume.dtype != np.int32:
            raise TypeError(f"called with {type(volume)}")
        mask = (torch.from_numpy(volume) > self.bias).to(torch.float32) + 0 * self.bias
        return mask if self.count == 1 else torch.stack([mask] * self.count)
'''

SCRIPTED_SOURCE = """
import torch
from torch import nn


class Scripted(nn.Module):
    def __init__(self, count: int = 1) -> None:
        super().__init__()
        self.count = count

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        assert volume.dtype == torch.int32
        mask = volume > 0
        return mask if self.count == 1 else torch.stack([mask] * self.count)
"""

SAVED_BY_ITS_SCRIPT = """
if __name__ == "__main__":
    torch.save(Threshold(), __file__ + ".pt")
"""


def structures(count: int = 1) -> tuple[StructureSpec, ...]:
    return tuple(StructureSpec(f"structure {index}", str(index)) for index in range(count))


def write_source(folder: Path, source: str, name: str = "unet") -> Path:
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    return path


@contextmanager
def imported(path: Path) -> Iterator[ModuleType]:
    """The module, importable by its own name while the user saves a model from it."""
    module = import_module_file(path, path.stem)
    try:
        yield module
    finally:
        del sys.modules[path.stem]


def spec_of(artifact: Path | None, module: Path | None = None, count: int = 1, **fields: object) -> ModelSpec:
    values: dict[str, object] = {
        "model_id": "model",
        "runtime": "pytorch",
        "artifact": artifact,
        "module": module,
        "module_name": None if module is None else module.stem,
        "structures": structures(count),
    }
    return ModelSpec(**(values | fields))  # type: ignore[arg-type]  # the fields of one test case


def whole_model(folder: Path, count: int = 1) -> ModelSpec:
    source = write_source(folder, THRESHOLD_SOURCE)
    with imported(source) as module:
        torch.save(module.Threshold(count), folder / "model.pt")
    return spec_of(folder / "model.pt", source, count, allow_pickle=True)


def whole_model_saved_by_its_script(folder: Path) -> ModelSpec:
    source = write_source(folder, THRESHOLD_SOURCE + SAVED_BY_ITS_SCRIPT, "train")
    runpy.run_path(str(source), run_name="__main__")
    return spec_of(folder / "train.py.pt", source, allow_pickle=True)


def state_dict(folder: Path, count: int = 1) -> ModelSpec:
    source = write_source(folder, THRESHOLD_SOURCE)
    with imported(source) as module:
        torch.save(module.Threshold(count).state_dict(), folder / "weights.pt")
    options = {} if count == 1 else {"class_arguments": {"count": count}}
    return spec_of(folder / "weights.pt", source, count, options=options)


def torchscript(folder: Path, count: int = 1) -> ModelSpec:
    with imported(write_source(folder, SCRIPTED_SOURCE)) as module, warnings.catch_warnings(action="ignore"):
        script = torch.jit.script(module.Scripted(count))
        script.save(str(folder / "script.pt"))
    return spec_of(folder / "script.pt", count=count)


EXPORTED_SOURCE = """
import torch
from torch import nn


class Exported(nn.Module):
    def __init__(self, count: int = 1) -> None:
        super().__init__()
        self.count = count
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, volume):
        mask = (volume > self.bias).to(torch.int32)
        return mask if self.count == 1 else torch.stack([mask] * self.count)
"""


def exported(folder: Path, count: int = 1) -> ModelSpec:
    with imported(write_source(folder, EXPORTED_SOURCE)) as module:
        sizes = {"volume": {axis: torch.export.Dim(name) for axis, name in enumerate(("depth", "height", "width"))}}
        example = (torch.zeros((5, 6, 7), dtype=torch.int32),)
        program = torch.export.export(module.Exported(count).eval(), example, dynamic_shapes=sizes)
        torch.export.save(program, folder / "program.pt2")
    return spec_of(folder / "program.pt2", count=count)


def phantom(folder: Path, count: int = 1) -> ModelSpec:
    return ModelSpec("model", "phantom", structures=structures(count))


def answering(folder: Path, expression: str, count: int = 1) -> ModelSpec:
    """A model without weights that answers with `expression` over `volume`."""
    source = write_source(
        folder,
        f"import numpy as np\nimport torch\n\nclass Net(torch.nn.Module):\n"
        f"    def forward(self, volume):\n        return {expression}\n",
    )
    torch.save({}, folder / "empty.pt")
    return spec_of(folder / "empty.pt", source, count)
