"""Volumes as MONAI's LoadImaged would load them from files, and back.

MONAI counts (channel, x, y, z) and puts voxels into the patient by nibabel's affine, which points to the right,
anterior and superior; here it is (depth, height, width) and DICOM's left, posterior, superior.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.image_reader import ImageReader
from monai.data.meta_tensor import MetaTensor
from monai.utils.enums import MetaKeys, SpaceKeys
from numpy.typing import NDArray

from services.core.model_options import ModelOptions
from services.core.volumes import Volume
from services.worker.engine.grids import Affine, Grid
from services.worker.engine.preprocessing import model_input

LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From one frame to the other; its own inverse."""

REVERSED = [2, 1, 0, 3]
"""Columns of an affine over (x, y, z, 1), as of one over (z, y, x, 1); its own inverse."""


def ras_affine(grid: Grid) -> Affine:
    """From index (x, y, z, 1) to nibabel's patient frame."""
    return np.asarray(LPS_RAS @ grid.affine[:, REVERSED])


def grid_of(image: MetaTensor) -> Grid:
    """Where an image (channels, x, y, z) lies."""
    affine = np.asarray(image.affine.detach().cpu().numpy(), np.float64)
    _, width, height, depth = image.shape
    return Grid((depth, height, width), np.asarray(LPS_RAS @ affine)[:, REVERSED])


class MemoryReader(ImageReader):
    """Reads volumes by the names they were given instead of files by their paths.

    It is given to the bundle's own LoadImaged, so that data type, metadata and channels are what that makes of a scan.
    Several volumes under one key are channels of one image, as several files are; those on another grid than the first
    are brought to it.
    """

    def __init__(self) -> None:
        self._volumes: Mapping[str, Volume] = {}

    def offer(self, volumes: Sequence[Volume]) -> list[str]:
        """Have these to read, and no others. Returns their names, in the same order.

        Raises InvalidModelInput for a volume that is flat: MONAI would fail with less of a sentence.
        """
        for volume in volumes:
            grid = Grid.of_volume(volume)
            grid.from_index_of(grid)
        self._volumes = {f"volume-{position}": volume for position, volume in enumerate(volumes)}
        return list(self._volumes)

    def verify_suffix(self, filename: Any) -> bool:
        return True

    def read(self, data: Any, **_: Any) -> list[Volume]:
        return [self._volumes[str(name)] for name in ([data] if isinstance(data, str) else data)]

    def get_data(self, img: Any) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """float32 (x, y, z) of one volume, (channels, x, y, z) of several, and what nibabel would know of them."""
        data = model_input(ModelOptions(), img, torch.device("cpu"))
        channels = data.patch((0, 0, 0), data.grid.shape).numpy().transpose(0, 3, 2, 1)
        several = len(img) > 1
        affine = ras_affine(data.grid)
        return channels if several else channels[0], {
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.array(channels.shape[1:]),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: 0 if several else float("nan"),
        }
