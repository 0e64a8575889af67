"""docs/model-options.md: what a reader copies from it works as it stands."""

import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from services.core.checked_options import model_options
from services.core.model_spec import ModelSpec, StructureSpec
from services.core.volumes import Volume
from tests.runtimes.artifacts_monai_bundle import (
    CHANNEL_FIRST,
    LOAD,
    SCALE,
    as_nifti,
    bundle_spec,
    configuration,
    convolution,
    packed,
    write_bundle,
)
from tests.runtimes.artifacts_voxels import labels_of, levels
from tests.runtimes.running import segmented

PAGE = (Path(__file__).parents[2] / "docs" / "model-options.md").read_text(encoding="utf-8")


def code_block_after(words: str, language: str) -> str:
    found = re.search(rf"{re.escape(words)}.*?```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found, f"the page has no {language} block after «{words}»"
    return found.group(1)


def options_after(words: str) -> dict[str, Any]:
    options: dict[str, Any] = yaml.safe_load(code_block_after(words, "yaml"))
    return options


def structures_of(options: dict[str, Any]) -> tuple[StructureSpec, ...]:
    return tuple(StructureSpec(name, str(number)) for number, name in enumerate(options["mapping"], start=1))


def test_the_example_of_a_patch_wise_network_has_options_that_there_are() -> None:
    assert model_options("onnx", options_after("`lung.yaml`")).inference.patch == (96, 128, 128)


def test_the_classifier_that_the_page_trains_finds_its_tissues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a folder with two patients as the page wants it, and the options beside it
    for patient in ("one", "two"):
        folder = tmp_path / "training" / patient
        folder.mkdir(parents=True)
        as_nifti(Volume(levels(2)), folder / "ct.nii.gz")
        as_nifti(Volume(labels_of(levels(2)).astype(np.int16).reshape(levels(2).shape)), folder / "labels.nii.gz")
    (tmp_path / "tissue.yaml").write_text(code_block_after("`tissue.yaml`", "yaml"))
    (tmp_path / "train.py").write_text(code_block_after("`tissue.yaml`", "python"))
    # When the page's program trains, and what it saved segments a volume with the same options
    monkeypatch.chdir(tmp_path)
    runpy.run_path("train.py")
    options = options_after("`tissue.yaml`")
    spec = ModelSpec(
        "tissue-1", "sklearn", tmp_path / "tissue.skops", structures=structures_of(options), options=options
    )
    fat, muscle = segmented(spec, levels(2))
    # Then each tissue is where it was drawn
    drawn = labels_of(levels(2)).reshape(levels(2).shape)
    np.testing.assert_array_equal(fat, drawn == 1)
    np.testing.assert_array_equal(muscle, drawn == 2)


def test_the_example_of_a_bundle_changes_its_window(tmp_path: Path) -> None:
    # Given a bundle that marks with 1 what is above the middle of its window, which begins at -1000
    transforms = [LOAD, CHANNEL_FIRST, SCALE]
    archive = packed(write_bundle(tmp_path, configuration(preprocessing=transforms), convolution()))
    options = options_after("## MONAI bundles")
    # When it runs with the page's options, which let the window end at 400
    volume = np.full((16, 16, 16), -900, np.int16)
    volume[4:8, 4:8, 4:8], volume[10:14, 4:8, 4:8] = -290, -310
    [mask] = segmented(bundle_spec(archive, options=options, structures=structures_of(options)), volume)
    # Then what is above -300 is marked
    np.testing.assert_array_equal(mask, volume > -300)
