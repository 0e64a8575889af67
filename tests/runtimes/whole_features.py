"""Features of a whole volume as somebody would compute them to train a model: scipy alone, no slabs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from services.core.volumes import Geometry

Float32s = NDArray[np.float32]


def whole_features(
    volumes: Sequence[NDArray[np.generic]], features: Sequence[str], geometry: Geometry | None = None
) -> Float32s:
    """Rows (voxels, columns) of volumes (depth, height, width) that lie on one grid."""
    geometry = geometry or Geometry()
    columns: list[Float32s] = []
    for index, volume in enumerate(volumes):
        for feature in features:
            if feature != "position":
                columns.append(_feature(volume.astype(np.float32), feature, geometry.spacing[::-1]))
            elif index == 0:
                columns += positions(volume.shape, geometry)
    return np.stack([column.ravel() for column in columns], axis=1).astype(np.float32)


def positions(shape: Sequence[int], geometry: Geometry) -> list[NDArray[np.float32]]:
    """Patient x, y and z of each voxel."""
    k, j, i = np.indices(shape)
    indices = np.stack([i.ravel(), j.ravel(), k.ravel(), np.ones(i.size)])
    patient = geometry.index_to_patient() @ indices
    return [patient[axis].reshape(tuple(shape)).astype(np.float32) for axis in range(3)]


def _feature(volume: Float32s, feature: str, spacing: Sequence[float]) -> Float32s:
    kind, _, scale = feature.partition(":")
    if kind == "intensity":
        return volume
    sigmas = [float(scale) / length for length in spacing]
    sizes = [2 * round(float(scale) / length) + 1 for length in spacing]

    def derivative(axis: int, order: int) -> Float32s:
        orders = [order if own == axis else 0 for own in range(3)]
        return np.asarray(ndimage.gaussian_filter(volume, sigmas, orders) / np.float32(spacing[axis] ** order))

    result: Any
    match kind:
        case "gaussian":
            result = ndimage.gaussian_filter(volume, sigmas)
        case "gradient":
            result = np.sqrt(sum(derivative(axis, 1) ** 2 for axis in range(3)))
        case "laplacian":
            result = sum(derivative(axis, 2) for axis in range(3))
        case "mean":
            result = ndimage.uniform_filter(volume.astype(np.float64), sizes)
        case "deviation":
            result = ndimage.generic_filter(volume.astype(np.float64), np.std, sizes)
        case _:
            result = {"minimum": ndimage.minimum_filter, "maximum": ndimage.maximum_filter}[kind](volume, sizes)
    return np.asarray(result, np.float32)
