"""A bundle draws here what MONAI itself saves, wherever the scan lies and however the bundle is written."""

import gc
import json
import multiprocessing
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from monai.data.meta_tensor import MetaTensor
from monai.networks.nets.unet import UNet
from monai.transforms.io.dictionary import LoadImaged
from numpy.typing import NDArray
from scipy import ndimage

from services.core.model_spec import ModelSpec, StructureSpec
from services.core.volumes import Geometry, Volume
from services.worker.engine.grids import Grid
from services.worker.runtimes.monai_bundle_images import MemoryReader, grid_of
from tests.runtimes.artifacts_monai_bundle import (
    ABOVE_HALF,
    ARGMAX,
    CHANNEL_FIRST,
    CONVOLUTION,
    INVERT,
    LOAD,
    ORIENT,
    SAVE,
    SCALE,
    SIGMOID,
    SOFTMAX,
    SPACE,
    UNET,
    Json,
    as_nifti,
    bundle_spec,
    configuration,
    convolution,
    from_nifti,
    metadata,
    packed,
    run_by_monai,
    write_bundle,
)
from tests.runtimes.running import Heard, loaded, segmented


def rotated(x: float, y: float, z: float) -> NDArray[np.float64]:
    """Axes in columns, turned around x, y and z by so many radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate((x, y, z)):
        turn = np.eye(3)
        first, second = [other for other in range(3) if other != axis]
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def geometry(axes: NDArray[np.float64]) -> Geometry:
    x, y, z = (tuple(map(float, axis)) for axis in axes.T)
    return Geometry((-31.5, 12.25, 117.0), x, y, z, (1.25, 1.5, 2.5))  # type: ignore[arg-type]  # three each


GEOMETRIES = {
    "as sent": geometry(np.eye(3)),
    "flipped": geometry(np.diag([-1.0, 1.0, -1.0])),
    "left-handed": geometry(np.diag([1.0, 1.0, -1.0])),
    "sagittal": geometry(np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])),
    "oblique": geometry(rotated(0.2, -0.3, 0.4)),
    "oblique and flipped": geometry(rotated(-0.5, 0.3, 0.1) @ np.diag([-1.0, 1.0, 1.0])),
}


def scan(place: Geometry = GEOMETRIES["as sent"], shape: tuple[int, int, int] = (14, 22, 26), seed: int = 0) -> Volume:
    """Blobs that no axis or direction can be mistaken for another in. Odd numbers: none is just at a threshold."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(0, 4000, shape), 1.5)
    return Volume(smooth.astype(np.int16) | 1, place)


def seeded_unet(**arguments: Any) -> UNet:
    torch.manual_seed(1)
    return UNet(**{name: value for name, value in (UNET | arguments).items() if name != "_target_"})


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary directory, as a host has one of its own."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    gc.collect()


@pytest.mark.parametrize("place", GEOMETRIES)
def test_a_volume_is_what_monai_would_load_from_its_file(place: str, tmp_path: Path) -> None:
    # Given a scan, and the NIfTI file that SimpleITK writes of it
    volume = scan(GEOMETRIES[place])
    path = as_nifti(volume, tmp_path / "scan.nii.gz")
    reader = MemoryReader()
    [name] = reader.offer([volume])
    # When MONAI loads both
    of_file: MetaTensor = LoadImaged("image")({"image": str(path)})["image"]
    of_memory: MetaTensor = LoadImaged("image", reader=reader)({"image": name})["image"]  # type: ignore[arg-type]
    # Then voxels, their order and type, and where they lie are the same, as far as the file's single precision goes
    assert of_memory.dtype == of_file.dtype
    np.testing.assert_array_equal(of_memory.numpy(), of_file.numpy())
    np.testing.assert_allclose(of_memory.affine, of_file.affine, atol=1e-5)
    np.testing.assert_array_equal(of_memory.meta["spatial_shape"], of_file.meta["spatial_shape"])
    assert of_memory.meta["space"] == of_file.meta["space"]
    assert np.isnan(of_memory.meta["original_channel_dim"]) and np.isnan(of_file.meta["original_channel_dim"])
    # And the way back leads to the volume's own grid
    with_channel = MetaTensor(of_memory[None])
    assert np.abs(grid_of(with_channel).affine - Grid.of_volume(volume).affine).max() < 1e-12
    assert grid_of(with_channel).shape == volume.shape


@pytest.fixture(scope="module")
def monai() -> Iterator[Executor]:
    """A process that runs bundles as users of MONAI do."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        yield executor


def both(
    monai: Executor, tmp_path: Path, entries: Json, network: Any, place: Geometry, **fields: Any
) -> tuple[list[Any], Any]:
    """The masks that are drawn here, and what MONAI saves."""
    path = as_nifti(scan(place), tmp_path / "scan.nii.gz")
    root = write_bundle(tmp_path, entries, network)
    masks = segmented(bundle_spec(packed(root), **fields), from_nifti(path))
    return masks, monai.submit(run_by_monai, root, str(path)).result()


@pytest.mark.parametrize("place", GEOMETRIES)
def test_the_masks_are_what_monai_saves(place: str, tmp_path: Path, monai: Executor) -> None:
    # Given a bundle as the model zoo has them, which reorients, resamples, slides a window and inverts
    entries = configuration(UNET, postprocessing=[SOFTMAX, INVERT, ARGMAX, SAVE])
    # When it runs here, and by MONAI from a file
    masks, saved = both(monai, tmp_path, entries, seeded_unet(), GEOMETRIES[place], count=2)
    # Then every label is its structure, voxel by voxel
    assert set(np.unique(saved)) == {0, 1, 2}
    for label, mask in enumerate(masks, start=1):
        assert np.count_nonzero(mask != (saved == label)) == 0


def test_labels_that_are_inverted_are_what_monai_saves(tmp_path: Path, monai: Executor) -> None:
    postprocessing = [SOFTMAX, ARGMAX, INVERT | {"nearest_interp": True}, SAVE]
    masks, saved = both(
        monai,
        tmp_path,
        configuration(UNET, postprocessing=postprocessing),
        seeded_unet(),
        GEOMETRIES["oblique"],
        count=2,
    )
    # The nearest voxel is a matter of rounding where two are as near, and the file rounds where it lies.
    for label, mask in enumerate(masks, start=1):
        assert np.count_nonzero(mask != (saved == label)) < 0.005 * mask.size


def test_scores_are_decided_as_for_other_models(tmp_path: Path, monai: Executor) -> None:
    # Given a bundle that returns the scores of three classes
    entries = configuration(UNET, postprocessing=[SOFTMAX, INVERT, SAVE])
    masks, saved = both(monai, tmp_path, entries, seeded_unet(), GEOMETRIES["flipped"], count=2)
    # Then the greatest one counts
    for label, mask in enumerate(masks, start=1):
        np.testing.assert_array_equal(mask, saved.argmax(axis=0) == label)


def test_what_is_not_inverted_is_brought_back(tmp_path: Path) -> None:
    # Given a bundle without Invertd, which saves on the grid that it resampled to
    volume = scan(GEOMETRIES["oblique"])
    with_it = bundle_spec(packed(write_bundle(tmp_path / "a", configuration(), convolution())))
    entries = configuration(postprocessing=[SIGMOID, ABOVE_HALF, SAVE])
    without = bundle_spec(packed(write_bundle(tmp_path / "b", entries, convolution())))
    # When both run
    [inverted], [brought_back] = segmented(with_it, volume), segmented(without, volume)
    # Then they differ no more than two ways of interpolating do, half a voxel at the surface
    assert inverted.shape == brought_back.shape
    overlap = 2 * np.count_nonzero(inverted & brought_back) / (inverted.sum() + brought_back.sum())
    assert overlap > 0.9
    assert 0 < inverted.mean() < 1


def test_a_mapping_names_the_labels(tmp_path: Path, monai: Executor) -> None:
    entries = configuration(UNET, postprocessing=[SOFTMAX, INVERT, ARGMAX, SAVE])
    masks, saved = both(
        monai,
        tmp_path,
        entries,
        seeded_unet(),
        GEOMETRIES["as sent"],
        count=1,
        options={"mapping": {"structure 0": 2}, "ignored_outputs": [1]},
    )
    np.testing.assert_array_equal(masks[0], saved == 2)


@pytest.mark.parametrize("place", ["as sent", "oblique and flipped"])
def test_two_volumes_under_one_key_are_its_channels(place: str, tmp_path: Path, monai: Executor) -> None:
    # Given a bundle whose image has two channels, and two files on one grid
    preprocessing = [LOAD, CHANNEL_FIRST, ORIENT, SPACE, SCALE]
    entries = configuration(UNET | {"in_channels": 2}, preprocessing, [SOFTMAX, INVERT, ARGMAX, SAVE])
    root = write_bundle(tmp_path, entries, seeded_unet(in_channels=2), metadata(2, 3))
    paths = [as_nifti(scan(GEOMETRIES[place], seed=seed), tmp_path / f"{seed}.nii.gz") for seed in (3, 4)]
    spec = bundle_spec(packed(root), 2, channels=("CT", "PET"))
    # When MONAI gets both files as one image
    saved = monai.submit(run_by_monai, root, [str(path) for path in paths]).result()
    masks = segmented(spec, *(from_nifti(path, name) for path, name in zip(paths, spec.channels, strict=True)))
    # Then the first is the first channel here, too
    for label, mask in enumerate(masks, start=1):
        np.testing.assert_array_equal(mask, saved == label)


def two_keys(folder: Path) -> ModelSpec:
    """Marks where the first image is above zero: the second channel counts nothing."""
    loading = {"_target_": "LoadImaged", "keys": ["first", "second"], "ensure_channel_first": True}
    together = {"_target_": "ConcatItemsd", "keys": ["first", "second"], "name": "image"}
    entries = configuration(CONVOLUTION | {"in_channels": 2}, [loading, together, SCALE], [SIGMOID, ABOVE_HALF, SAVE])
    network = convolution(2)
    with torch.no_grad():
        network.weight[:, 1] = 0
    root = write_bundle(folder, entries, network, metadata(2))
    return bundle_spec(packed(root), channels=("CT", "PET"))


def test_each_of_two_keys_gets_a_volume(tmp_path: Path) -> None:
    spec = two_keys(tmp_path)
    first, second = scan(seed=5), scan(seed=6)
    [mask] = segmented(spec, Volume(first.voxels, first.geometry, "CT"), Volume(second.voxels, second.geometry, "PET"))
    np.testing.assert_array_equal(mask, first.voxels > 0)


def test_channel_order_says_which_volume_comes_first(tmp_path: Path) -> None:
    spec = two_keys(tmp_path)
    swapped = ModelSpec.from_json(spec.to_json() | {"options": {"preprocessing": {"channel_order": ["PET", "CT"]}}})
    first, second = scan(seed=5), scan(seed=6)
    [mask] = segmented(
        swapped, Volume(first.voxels, first.geometry, "CT"), Volume(second.voxels, second.geometry, "PET")
    )
    np.testing.assert_array_equal(mask, second.voxels > 0)


def test_a_second_channel_on_another_grid_is_brought_to_the_first(tmp_path: Path) -> None:
    # Given two channels under one key, of which only the second counts, on the same voxels in another order
    entries = configuration(CONVOLUTION | {"in_channels": 2}, [LOAD, CHANNEL_FIRST, SCALE], [SIGMOID, ABOVE_HALF, SAVE])
    network = convolution(2)
    with torch.no_grad():
        network.weight[:, 0] = 0
    spec = bundle_spec(
        packed(write_bundle(tmp_path, entries, network, metadata(2))),
        channels=("CT", "PET"),
        structures=(StructureSpec("on CT", "0", 0), StructureSpec("on PET", "1", 1)),
        options={"mapping": {"0": 1, "1": 1}},
    )
    pet = scan(seed=7)
    turned = pet.voxels[:, :, ::-1]
    place = pet.geometry
    far_end = np.array(place.origin) + np.array(place.x_axis) * place.spacing[0] * (turned.shape[2] - 1)
    x, y, z = far_end.tolist()
    ct = Volume(
        np.zeros_like(turned),
        Geometry((x, y, z), (-1.0, 0.0, 0.0), place.y_axis, place.z_axis, place.spacing),
        "CT",
    )
    # When they are segmented
    on_ct, on_pet = segmented(spec, ct, Volume(pet.voxels, place, "PET"))
    # Then the mask is the second channel's, on each structure's own grid
    np.testing.assert_array_equal(on_ct, turned > 0)
    np.testing.assert_array_equal(on_pet, pet.voxels > 0)


def test_an_override_changes_the_configuration(tmp_path: Path) -> None:
    # Given a bundle, and an override that moves its window up by 500
    root = write_bundle(tmp_path, configuration(preprocessing=[LOAD, CHANNEL_FIRST, SCALE]), convolution())
    options = {"bundle": {"preprocessing::transforms::2::a_max": 2000}}
    volume = scan()
    # Then what is marked is what is above the middle of the new one
    [mask] = segmented(bundle_spec(packed(root), options=options), volume)
    np.testing.assert_array_equal(mask, volume.voxels > 500)


def test_yaml_and_torchscript_and_files_at_the_top_of_the_zip(tmp_path: Path) -> None:
    # Given a bundle in YAML, whose network is a TorchScript archive, packed without its folder
    root = write_bundle(tmp_path, configuration(preprocessing=[LOAD, CHANNEL_FIRST, SCALE], network_def=None), None)
    entries = json.loads((root / "configs" / "inference.json").read_text(encoding="utf-8"))
    del entries["network"], entries["evaluator"], entries["checkpointloader"], entries["initialize"]
    archive = tmp_path / "flat.zip"
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(convolution()), tmp_path / "model.ts")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("configs/inference.yaml", yaml.safe_dump(entries))
        file.write(root / "configs" / "metadata.json", "configs/metadata.json")
        file.write(tmp_path / "model.ts", "models/model.ts")
    volume = scan(GEOMETRIES["oblique"])
    # Then it runs
    [mask] = segmented(bundle_spec(archive), volume)
    np.testing.assert_array_equal(mask, volume.voxels > 0)


def test_a_bundle_brings_its_own_python(tmp_path: Path) -> None:
    entries = configuration({"_target_": "own_code.net.Above", "limit": 0.25}, [LOAD, CHANNEL_FIRST, SCALE])
    entries |= {"checkpointloader": None, "initialize": ["$print('hello')"]}
    root = write_bundle(tmp_path, entries, None)
    (root / "own_code").mkdir()
    (root / "own_code" / "__init__.py").touch()
    (root / "own_code" / "net.py").write_text(
        "import torch\n\nclass Above(torch.nn.Module):\n    def __init__(self, limit):\n"
        "        super().__init__()\n        self.limit = limit\n\n"
        "    def forward(self, x):\n        return x - self.limit\n",
        encoding="utf-8",
    )
    volume = scan()
    [mask] = segmented(bundle_spec(packed(root)), volume)
    np.testing.assert_array_equal(mask, volume.voxels > 250)


def test_progress_comes_from_the_windows(tmp_path: Path) -> None:
    heard = Heard()
    segmented(bundle_spec(packed(write_bundle(tmp_path, configuration(), convolution()))), scan(), heard=heard)
    assert heard.fractions == sorted(heard.fractions)
    assert len(heard.fractions) > 5
    assert heard.fractions[-1] == 1.0


def test_its_files_go_with_the_model(tmp_path: Path, scratch: Path) -> None:
    # Given a model that is loaded, whose files are in the scratch folder
    spec = bundle_spec(packed(write_bundle(tmp_path, configuration(), convolution())))
    model = loaded(spec)
    assert list(scratch.iterdir())
    # When it is gone, then so are they
    del model
    gc.collect()
    assert not list(scratch.iterdir())
