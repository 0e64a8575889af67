"""Writes MONAI bundles as the model zoo has them, and runs them as a user of MONAI would. Needs MONAI."""

import json
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
import torch
from monai.bundle.workflows import ConfigWorkflow
from numpy.typing import NDArray
from torch import nn

from services.core.model_spec import ModelSpec
from services.core.volumes import Geometry, Volume
from tests.runtimes.artifacts import structures

Json = dict[str, Any]

LOAD: Json = {"_target_": "LoadImaged", "keys": "image"}
CHANNEL_FIRST: Json = {"_target_": "EnsureChannelFirstd", "keys": "image"}
ORIENT: Json = {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"}
SPACE: Json = {"_target_": "Spacingd", "keys": "image", "pixdim": [1.37, 1.21, 1.93], "mode": "bilinear"}
"""No voxel of the tests' scans then lies just between two: rounding would decide which is the nearest."""

SCALE: Json = {
    **{"_target_": "ScaleIntensityRanged", "keys": "image", "clip": True},
    **{"a_min": -1000, "a_max": 1000, "b_min": -1, "b_max": 1},
}
PREPROCESSING = [LOAD, CHANNEL_FIRST, ORIENT, SPACE, SCALE, {"_target_": "EnsureTyped", "keys": "image"}]

SOFTMAX: Json = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
SIGMOID: Json = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
INVERT: Json = {
    **{"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"},
    **{"nearest_interp": False, "to_tensor": True},
}
ARGMAX: Json = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
ABOVE_HALF: Json = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
SAVE: Json = {
    **{"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "output_postfix": "seg"},
    **{"separate_folder": False, "resample": False},
}

CONVOLUTION: Json = {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 1, "kernel_size": 1}
UNET: Json = {
    **{"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3},
    **{"channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 1},
}


def configuration(
    network: Json = CONVOLUTION,
    preprocessing: Sequence[Json] = PREPROCESSING,
    postprocessing: Sequence[Json] = (SIGMOID, INVERT, ABOVE_HALF, SAVE),
    **other: Any,
) -> Json:
    """An inference.json of the model zoo's kind. Entries of `other` replace its own; None leaves one out."""
    entries: Json = {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": "/workspace/data/Task09_Spleen",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/imagesTs/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": list(preprocessing)},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': i} for i in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": [16, 16, 16],
            "sw_batch_size": 4,
            "overlap": 0.5,
        },
        "postprocessing": {"_target_": "Compose", "transforms": list(postprocessing)},
        "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
            "amp": True,
        },
        "checkpointloader": {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
        },
        "initialize": ["$monai.utils.set_determinism(seed=123)", "$@checkpointloader(@evaluator)"],
        "run": ["$@evaluator.run()"],
    }
    return {name: value for name, value in (entries | other).items() if value is not None}


def metadata(channels: int = 1, outputs: int = 1) -> Json:
    image = {"type": "image", "format": "hounsfield", "num_channels": channels, "spatial_shape": [16, 16, 16]}
    pred = {"type": "image", "format": "segmentation", "num_channels": outputs, "spatial_shape": [16, 16, 16]}
    return {
        "version": "0.1.0",
        "monai_version": "1.4.0",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
    }


def convolution(channels: int = 1, outputs: int = 1) -> nn.Conv3d:
    """Each output is the sum of the channels: above zero where a voxel is above the middle of SCALE's window."""
    network = nn.Conv3d(channels, outputs, 1)
    nn.init.ones_(network.weight)
    nn.init.zeros_(network.bias)  # type: ignore[arg-type]  # there is one
    return network


def write_bundle(folder: Path, entries: Json, network: nn.Module | None, meta: Json | None = None) -> Path:
    """The bundle's folder, as it would be worked on."""
    root = folder / "bundle"
    (root / "configs").mkdir(parents=True)
    (root / "models").mkdir()
    (root / "configs" / "inference.json").write_text(json.dumps(entries), encoding="utf-8")
    (root / "configs" / "metadata.json").write_text(json.dumps(meta or metadata()), encoding="utf-8")
    if network is not None:
        torch.save(network.state_dict(), root / "models" / "model.pt")
    return root


def packed(root: Path) -> Path:
    """The zip that a user would attach, with the folder itself in it as the model zoo has it."""
    archive = root.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(root.rglob("*")):
            file.write(path, path.relative_to(root.parent))
    return archive


def bundle_spec(archive: Path, count: int = 1, **fields: Any) -> ModelSpec:
    values: Json = {"allow_pickle": True, "structures": structures(count)}
    return ModelSpec("model", "monai_bundle", archive, **(values | fields))


def monai_bundle(folder: Path, count: int = 1) -> ModelSpec:
    """Everything above the middle of SCALE's window, for each structure."""
    same_spacing = SPACE | {"pixdim": [1.0, 1.0, 1.0]}
    preprocessing = [same_spacing if transform is SPACE else transform for transform in PREPROCESSING]
    entries = configuration(CONVOLUTION | {"out_channels": count}, preprocessing)
    return bundle_spec(packed(write_bundle(folder, entries, convolution(outputs=count))), count)


def as_nifti(volume: Volume, path: Path) -> Path:
    """The volume as SimpleITK writes it."""
    image: Any = SimpleITK.GetImageFromArray(volume.voxels)
    geometry = volume.geometry
    image.SetOrigin(geometry.origin)
    image.SetSpacing(geometry.spacing)
    axes = np.column_stack([geometry.x_axis, geometry.y_axis, geometry.z_axis])
    image.SetDirection(axes.ravel().tolist())
    SimpleITK.WriteImage(image, str(path))
    return path


def from_nifti(path: Path, channel_id: str = "") -> Volume:
    """What a workstation would send of that file."""
    image: Any = SimpleITK.ReadImage(str(path))
    x, y, z = np.array(image.GetDirection()).reshape(3, 3).T.tolist()
    geometry = Geometry(image.GetOrigin(), tuple(x), tuple(y), tuple(z), image.GetSpacing())
    return Volume(SimpleITK.GetArrayFromImage(image), geometry, channel_id)


def run_by_monai(root: Path, *datalist: Any) -> NDArray[np.generic]:
    """What MONAI itself saves for the one item of `datalist`, as SimpleITK reads it: (depth, height, width).

    To be called in a process of its own: MONAI takes up the library of its evaluator when it is first imported, which
    fails where warnings are errors.
    """
    output = root.parent / "saved"
    with warnings.catch_warnings(action="ignore"):
        workflow = ConfigWorkflow(
            str(root / "configs" / "inference.json"),
            logging_file=False,
            workflow_type="infer",
            bundle_root=str(root),
            output_dir=str(output),
            datalist=list(datalist),
        )
        workflow.initialize()
        workflow.run()
    [saved] = output.glob("*.nii.gz")
    result: NDArray[np.generic] = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(saved)))
    return result
