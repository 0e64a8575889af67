"""What every runtime does, whatever runs beneath it: one suite over the phantom and each library in its forms."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from services.core.catalogue import RuntimeName
from services.core.errors import RuntimeUnavailable
from services.core.model_spec import ModelSpec
from services.worker.model_stages import ModelStage
from services.worker.runtimes import MODULES, runtime
from tests.runtimes import artifacts, artifacts_onnx, artifacts_tensorflow, artifacts_voxels
from tests.runtimes.artifacts_monai_bundle import monai_bundle
from tests.runtimes.running import Heard, loaded, segmented

Make = Callable[[Path, int], ModelSpec]

KINDS: dict[str, Make] = {
    "phantom": artifacts.phantom,
    "pytorch whole": artifacts.whole_model,
    "pytorch state_dict": artifacts.state_dict,
    "pytorch torchscript": artifacts.torchscript,
    "pytorch export": artifacts.exported,
    "onnx": artifacts_onnx.plain,
    "onnx with external data": artifacts_onnx.external,
    "tensorflow SavedModel": artifacts_tensorflow.saved_model,
    "keras": artifacts_tensorflow.keras_file,
    "keras h5": artifacts_tensorflow.hdf5_file,
    "sklearn skops": artifacts_voxels.sklearn_skops,
    "sklearn joblib": artifacts_voxels.sklearn_joblib,
    "xgboost json": artifacts_voxels.xgboost_json,
    "xgboost ubj": artifacts_voxels.xgboost_ubj,
    "monai_bundle": monai_bundle,
}


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Make:
    return KINDS[request.param]


def bright_middle(shape: tuple[int, int, int] = (8, 70, 80)) -> NDArray[np.int16]:
    """Positive where the phantom draws, too, so that every kind finds something; read-only, as in a host."""
    volume = np.full(shape, -1000, np.int16)
    depth, height, width = shape
    volume[depth // 4 : max(depth // 4 + 1, 3 * depth // 4), height // 2 - 5 : height // 2 + 5, width // 2] = 40
    volume.flags.writeable = False
    return volume


def test_the_table_holds_the_names_of_the_catalogue() -> None:
    assert set(MODULES) == {name.value for name in RuntimeName}
    for name in RuntimeName:
        assert runtime(name).name == name


def test_an_unknown_runtime_lists_the_choices() -> None:
    with pytest.raises(RuntimeUnavailable, match=r"'nnunet'.*phantom, pytorch"):
        runtime("nnunet")


def test_nothing_is_missing_here(make: Make, tmp_path: Path) -> None:
    assert runtime(make(tmp_path, 1).runtime).missing() is None


@pytest.mark.parametrize("shape", [(8, 70, 80), (1, 64, 64), (3, 16, 20)])
def test_one_structure_is_one_mask_of_the_volumes_shape(
    make: Make, tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    # Given a model of one structure
    spec = make(tmp_path, 1)
    # When it segments
    masks = segmented(spec, bright_middle(shape))
    # Then it returns one mask on the grid of the volume, neither empty nor full
    assert [mask.shape for mask in masks] == [shape]
    assert np.any(masks[0])


def test_several_structures_are_as_many_masks(make: Make, tmp_path: Path) -> None:
    volume = bright_middle()
    masks = segmented(make(tmp_path, 3), volume)
    assert [mask.shape for mask in masks] == [volume.shape] * 3


def test_it_runs_again_and_again_with_the_same_result(make: Make, tmp_path: Path) -> None:
    spec = make(tmp_path, 1)
    model = loaded(spec)
    first, second = (segmented(spec, bright_middle(), model=model)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_progress_rises_to_one(make: Make, tmp_path: Path) -> None:
    heard = Heard()
    segmented(make(tmp_path, 2), bright_middle(), heard=heard)
    assert heard.fractions == sorted(heard.fractions)
    assert heard.fractions[-1] == 1.0


def test_it_tells_what_its_parts_took(make: Make, tmp_path: Path) -> None:
    spec, heard = make(tmp_path, 1), Heard()
    segmented(spec, bright_middle(), heard=heard)
    if spec.runtime == RuntimeName.PHANTOM:
        assert heard.stages == {}  # it is one whole
    else:
        assert {"transfer", "preprocess", "forward", "cleanup"} <= set(heard.stages) <= set(ModelStage)
        assert heard.stages["forward"] > 0


def test_the_volume_is_left_as_it_was(make: Make, tmp_path: Path) -> None:
    volume = bright_middle()
    before = volume.copy()
    segmented(make(tmp_path, 1), volume)
    np.testing.assert_array_equal(volume, before)


@pytest.mark.parametrize(
    "make_pytorch",
    [
        artifacts.whole_model,
        artifacts.whole_model_saved_by_its_script,
        artifacts.state_dict,
        artifacts.torchscript,
        artifacts.exported,
    ],
    ids=["whole", "whole, saved by its script", "state_dict", "torchscript", "export"],
)
def test_pytorch_returns_exactly_what_the_network_finds(
    make_pytorch: Callable[[Path], ModelSpec], tmp_path: Path
) -> None:
    # Given a network that marks what is above zero
    volume = bright_middle()
    # When it segments, then just that is marked
    (mask,) = segmented(make_pytorch(tmp_path), volume)
    np.testing.assert_array_equal(mask, volume > 0)


def test_weights_are_mapped_and_not_copied(tmp_path: Path) -> None:
    # Given a state_dict in a file
    spec = artifacts.state_dict(tmp_path)
    # When it is loaded, Then its weights are the file's own pages
    model = loaded(spec)
    assert str(spec.artifact) in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert np.any(segmented(spec, bright_middle(), model=model)[0])


def test_whole_models_load_under_the_servers_file_names(tmp_path: Path) -> None:
    # Given the two files under the names that the mounted volume gives them
    spec = artifacts.whole_model(tmp_path)
    assert spec.artifact is not None and spec.module is not None
    artifact = spec.artifact.rename(tmp_path / "3f2a.artifact")
    module = spec.module.rename(tmp_path / "9c1b.module")
    # When they are loaded with the module's own name
    renamed = artifacts.spec_of(artifact, module, module_name="unet", allow_pickle=True)
    # Then the class is found, and nothing was written beside the files
    assert np.any(segmented(renamed, bright_middle())[0])
    assert {path.name for path in tmp_path.iterdir()} == {"3f2a.artifact", "9c1b.module"}
