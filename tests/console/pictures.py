"""What is on the canvas, as pixels; and what ought to be there, computed from the patient's geometry alone."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Locator
from scipy import ndimage

from services.core.volumes import Geometry

UNTIL_DRAWN = """canvas => {
    const gl = canvas.getContext('webgl2')
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4))
    return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))
}"""

Pixels = NDArray[np.int16]
"""Shape (height, width, 3), 0 to 255."""
Plane = NDArray[np.bool_]
"""Shape (height, width)."""

# Which way each view's picture runs, in LPS: to the right, and down. Radiological: the patient's left is on the right.
LEFT, BACK, DOWN = np.eye(3) * [1, 1, -1]
VIEWS = {"Axial": (LEFT, BACK), "Coronal": (LEFT, DOWN), "Sagittal": (-BACK, DOWN)}


def picture(canvas: Locator) -> Pixels:
    """The canvas as it is on the screen, once the graphics processor, which is none here, has drawn all it was told."""
    canvas.evaluate(UNTIL_DRAWN)
    return np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB"), np.int16)


def is_light(pixels: Pixels) -> Plane:
    return np.asarray(pixels.mean(axis=2) > 127)


def is_red(pixels: Pixels) -> Plane:
    """Where red is laid over grey of any lightness, more than faintly."""
    return np.asarray(pixels[..., 0] - pixels[..., 1] > 110)


def is_blue(pixels: Pixels) -> Plane:
    return np.asarray(pixels[..., 2] - pixels[..., 1] > 110)


def agreement(one: Plane, other: Plane) -> float:
    """The area that both have over the area that one of them has."""
    return float((one & other).sum() / (one | other).sum())


def deepest(plane: Plane) -> tuple[int, int]:
    """The pixel (x, y) of `plane` that is farthest from its edge."""
    y, x = np.unravel_index(np.argmax(ndimage.distance_transform_edt(np.pad(plane, 1))), np.add(plane.shape, 2))
    return int(x) - 1, int(y) - 1


def nearest_axis(geometry: Geometry, direction: NDArray[np.float64]) -> tuple[int, bool]:
    """The index axis (0: along width) that runs most nearly along `direction` in LPS, and whether against it."""
    cosines = np.array([geometry.x_axis, geometry.y_axis, geometry.z_axis]) @ direction
    axis = int(np.abs(cosines).argmax())
    return axis, bool(cosines[axis] < 0)


@dataclass(frozen=True)
class Slice:
    """One view's slice of a volume: how array axes become the picture's columns and rows."""

    array: NDArray[np.bool_]
    """Shape (depth, height, width)."""
    geometry: Geometry
    view: str

    def through(self, index: tuple[int, int, int]) -> Plane:
        """The slice through voxel (i, j, k), as a person sees it."""
        (column, turned), (row, upside_down) = (
            nearest_axis(self.geometry, direction) for direction in VIEWS[self.view]
        )
        [across] = {0, 1, 2} - {column, row}
        plane: Plane = np.asarray(self.array.transpose().take(index[across], axis=across))
        plane = plane.T if column < row else plane  # rows first
        plane = plane[:, ::-1] if turned else plane
        return plane[::-1] if upside_down else plane


def stretched(plane: Plane, frame: Plane) -> Plane:
    """`plane` over the rectangle that is true in `frame`, each of its pixels a block; false around it."""
    rows, columns = (np.flatnonzero(frame.any(axis=axis)) for axis in (1, 0))
    top, left = rows[0], columns[0]
    height, width = rows[-1] + 1 - top, columns[-1] + 1 - left
    out = np.zeros(frame.shape, bool)
    y = np.arange(height) * plane.shape[0] // height
    x = np.arange(width) * plane.shape[1] // width
    out[top : top + height, left : left + width] = plane[np.ix_(y, x)]
    return out
