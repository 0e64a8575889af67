"""A synthetic head CT: anatomy of ellipsoids, enough to try the whole service on without any patient's data.

Coordinates are patient millimetres in LPS around the middle of the head: x to the left, y to the back, z to the
crown. Values are Hounsfield units.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from numpy.typing import NDArray

from services.client.itk import quiet_itk, simple_itk
from services.core.volumes import Geometry, Shape, Vector, Volume

EXTENT_MM = (250.0, 250.0, 180.0)
"""Field of view and scan length; the head keeps its size whatever the shape."""
AIR, FAT, MUSCLE, SKIN, SPONGY_BONE, BONE = -1000, -90, 50, 20, 450, 1250
GREY_MATTER, WHITE_MATTER, CSF, FALX, PINEAL, LENS, EYE = 38, 27, 6, 60, 1100, 70, 12
TOOTH, TABLE, FOAM = 1900, -120, -940
CT_RANGE = (-1024, 3071)
"""What twelve bits of a scanner hold."""
NOISE_HU = 9.0

Plane = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """Centre and half-axes in millimetres, turned about z by `turn_degrees`, filled with `value`."""

    value: int
    centre: Vector
    half_axes: Vector
    turn_degrees: float = 0.0
    power: float = 2.0
    """2 is an ellipsoid; more is boxier."""

    def squared_distance(self, x: Plane, y: Plane, z: float) -> Plane:
        """Below 1 inside, per pixel of the slice at `z`; `x` has shape (1, width), `y` (height, 1)."""
        turn = np.deg2rad(self.turn_degrees)
        along_x, along_y = x - np.float32(self.centre[0]), y - np.float32(self.centre[1])
        u = (along_x * np.cos(turn) + along_y * np.sin(turn)) / self.half_axes[0]
        v = (along_y * np.cos(turn) - along_x * np.sin(turn)) / self.half_axes[1]
        w = abs((z - self.centre[2]) / self.half_axes[2])
        if self.power == 2.0:
            return np.asarray(u * u + v * v + w * w, dtype=np.float32)
        return np.asarray(np.abs(u) ** self.power + np.abs(v) ** self.power + w**self.power, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Slice:
    """One slice at height `z`: `values` of shape (height, width), `x` (1, width) and `y` (height, 1)."""

    values: Plane
    x: Plane
    y: Plane
    z: float

    def around(self, part: Ellipsoid) -> Self | None:
        """The piece of this slice, sharing its values, that `part` can touch; None where it touches nothing."""
        if abs(self.z - part.centre[2]) >= part.half_axes[2]:
            return None
        reach = max(part.half_axes[:2]) if part.turn_degrees else None
        columns = _within(self.x[0], part.centre[0], reach or part.half_axes[0])
        rows = _within(self.y[:, 0], part.centre[1], reach or part.half_axes[1])
        return type(self)(self.values[rows, columns], self.x[:, columns], self.y[rows], self.z)

    def paint(self, part: Ellipsoid, above_base: bool = False) -> None:
        """Give `part` its value; with `above_base` only where the braincase is."""
        piece = self.around(part)
        if piece is not None:
            inside = part.squared_distance(piece.x, piece.y, piece.z) < 1
            piece.values[inside & piece.above_base() if above_base else inside] = part.value

    def above_base(self, floor_mm: float = 0.0) -> NDArray[np.bool_]:
        """Where the braincase is, less its floor: the skull base slopes down from the orbits to the nape."""
        base = np.maximum(-38 - 0.47 * self.y, -58) + 4 * np.sin(np.abs(self.x) / 9)
        return np.asarray(self.z - floor_mm > base)


def _within(coordinates: Plane, centre: float, reach: float) -> slice:
    first, last = np.searchsorted(coordinates, (centre - reach, centre + reach))
    return slice(int(first), int(last))


def _pair(value: int, centre: Vector, half_axes: Vector, turn_degrees: float = 0.0) -> tuple[Ellipsoid, Ellipsoid]:
    """The same on the left and on the right."""
    x, y, z = centre
    return (
        Ellipsoid(value, (x, y, z), half_axes, turn_degrees),
        Ellipsoid(value, (-x, y, z), half_axes, -turn_degrees),
    )


# Painted in this order, the later over the earlier.
SOFT_TISSUE = (
    Ellipsoid(SKIN, (0, -4, 8), (76, 97, 84)),
    Ellipsoid(SKIN, (0, -38, -55), (59, 56, 62), power=2.5),
    Ellipsoid(SKIN, (0, 26, -110), (57, 58, 90), power=2.5),
    Ellipsoid(SKIN, (0, -95, -42), (10, 14, 20)),
    *_pair(SKIN, (70, 12, -18), (6, 17, 22), 12),
    Ellipsoid(FAT, (0, -4, 8), (74, 95, 82)),
    Ellipsoid(FAT, (0, -38, -55), (56.5, 53.5, 60), power=2.5),
    Ellipsoid(FAT, (0, 26, -110), (55, 56, 90), power=2.5),
    Ellipsoid(MUSCLE, (0, -4, 6), (71.5, 92.5, 79)),
    Ellipsoid(MUSCLE, (0, -34, -55), (51, 49, 56), power=2.5),
    Ellipsoid(MUSCLE, (0, 26, -110), (48, 50, 88), power=2.5),
    *_pair(MUSCLE, (46, -24, -52), (9, 22, 38), 8),
    Ellipsoid(FAT, (0, 8, -95), (9, 40, 45)),
)
SKULL = (
    Ellipsoid(BONE, (0, -4, 8), (70, 91, 78)),
    Ellipsoid(SPONGY_BONE, (0, -4, 8), (67.8, 88.8, 75.8)),
    Ellipsoid(BONE, (0, -4, 8), (65.2, 86.2, 73.2)),
)
CRANIAL_CAVITY = Ellipsoid(CSF, (0, -4, 8), (63, 84, 71))
SKULL_FLOOR_MM = 4.0
"""Thickness of the floor of the braincase."""
FACE = (
    Ellipsoid(BONE, (0, -66, -46), (38, 24, 22)),
    *_pair(BONE, (31, -58, -22), (21, 25, 18), -12),
    *_pair(BONE, (46, -44, -36), (4, 24, 5), 14),
    *_pair(BONE, (43, 4, -44), (15, 12, 15), -25),
    *_pair(FAT, (31, -59, -22), (18, 23, 16), -12),
    *_pair(EYE, (31, -67, -22), (12, 12, 12)),
    *_pair(LENS, (31, -77, -22), (4.5, 2.2, 4.5)),
    *_pair(MUSCLE, (27, -46, -22), (2.6, 12, 2.6), -14),
    *_pair(AIR, (25, -62, -50), (12, 16, 15)),
    *_pair(AIR, (7, -62, -27), (5, 18, 10)),
    *_pair(AIR, (5, -74, -48), (3.6, 26, 15)),
    Ellipsoid(AIR, (0, -26, -32), (9, 10, 8)),
    Ellipsoid(BONE, (0, -80, -8), (36, 9, 15)),
    Ellipsoid(AIR, (0, -81, -4), (12, 3.5, 9)),
    *_pair(AIR, (50, 9, -44), (6, 7, 9)),
    Ellipsoid(AIR, (0, -14, -72), (12, 7, 40)),
)
JAW_AND_SPINE = (
    Ellipsoid(MUSCLE, (0, -58, -80), (27, 30, 11)),
    Ellipsoid(BONE, (0, 12, -96), (15, 11, 46)),
    Ellipsoid(SPONGY_BONE, (0, 12, -96), (12.5, 8.5, 44)),
    Ellipsoid(BONE, (0, 33, -96), (17, 13, 46)),
    Ellipsoid(BONE, (0, 50, -96), (4, 12, 40)),
    Ellipsoid(CSF, (0, 32, -90), (11, 9, 60)),
    Ellipsoid(WHITE_MATTER, (0, 32, -90), (6.5, 5, 60)),
)
DEEP_BRAIN = (
    *_pair(WHITE_MATTER, (27, -6, 22), (22, 60, 34)),
    *_pair(GREY_MATTER, (14, 6, 10), (9, 16, 11), -18),
    *_pair(GREY_MATTER, (24, -8, 10), (6, 17, 12), -14),
    *_pair(CSF, (10, -28, 22), (4.5, 21, 9), -14),
    *_pair(CSF, (14, 12, 28), (4.5, 26, 7), 16),
    *_pair(CSF, (27, 36, 14), (5, 15, 8), 20),
    Ellipsoid(CSF, (0, 4, 8), (2.2, 13, 9)),
    Ellipsoid(WHITE_MATTER, (0, 18, -28), (15, 14, 26)),
    Ellipsoid(CSF, (0, 33, -30), (6, 4, 9)),
    Ellipsoid(PINEAL, (0, 24, 6), (2.5, 3, 2.5)),
)


def make_head_ct(shape: Shape = (120, 512, 512), seed: int = 0) -> Volume:
    """A head CT of `shape` (depth, height, width) in Hounsfield units; the same `seed` gives the same voxels.

    It covers 250 × 250 × 180 mm from the jaw to above the crown, slices running upwards, lying on a table.
    """
    depth, height, width = shape
    spacing = (EXTENT_MM[0] / width, EXTENT_MM[1] / height, EXTENT_MM[2] / depth)
    x = _centres(width, spacing[0])[np.newaxis, :]
    y = _centres(height, spacing[1])[:, np.newaxis]
    z = _centres(depth, spacing[2])
    random = np.random.default_rng(seed)
    folds = random.uniform(0, 2 * np.pi, size=6)
    voxels = np.empty(shape, dtype=np.int16)
    plane = np.empty((height, width), dtype=np.float32)
    for index in range(depth):
        _draw(_Slice(plane, x, y, float(z[index])), folds)
        noise = random.standard_normal(plane.shape, dtype=np.float32) * np.float32(NOISE_HU)
        voxels[index] = np.clip(np.rint(_blurred(plane) + noise), *CT_RANGE)
    return Volume(voxels, Geometry(origin=(float(x[0, 0]), float(y[0, 0]), float(z[0])), spacing=spacing))


def write_dicom_series(volume: Volume, folder: Path) -> None:
    """Write `volume` (Hounsfield units) as a CT series of one patient PHANTOM^HEAD, one file per slice."""
    geometry = volume.geometry
    folder.mkdir(parents=True, exist_ok=True)
    writer = simple_itk().ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    affine = geometry.index_to_patient()
    # The same voxels are the same series: UIDs by content, not by clock.
    content = sha256(np.ascontiguousarray(volume.voxels).data).hexdigest()
    common = {
        "0008|0008": "DERIVED\\PRIMARY\\AXIAL",
        "0008|0020": "20000101",
        "0008|0030": "120000",
        "0008|0060": "CT",
        "0008|0070": "SegInt",
        "0008|1030": "Synthetic head",
        "0008|103e": "Synthetic head CT",
        "0010|0010": "PHANTOM^HEAD",
        "0010|0020": "PHANTOM",
        "0010|0040": "O",
        "0018|0015": "HEAD",
        "0018|0050": f"{geometry.spacing[2]:.6g}",
        "0018|5100": "HFS",
        "0020|000d": _uid(content, "study"),
        "0020|000e": _uid(content, "series"),
        "0020|0010": "PHANTOM",
        "0020|0011": "1",
        "0020|0037": "\\".join(f"{value:.10g}" for value in (*geometry.x_axis, *geometry.y_axis)),
        "0020|0052": _uid(content, "frame of reference"),
        "0028|1050": "40",
        "0028|1051": "400",
        "0028|1052": "-1024",
        "0028|1053": "1",
        "0028|1054": "HU",
    }
    with quiet_itk():
        for index in range(volume.shape[0]):
            position = (affine @ (0, 0, index, 1))[:3]
            image = simple_itk().GetImageFromArray(volume.voxels[index : index + 1])
            image.SetSpacing(geometry.spacing)
            image.SetOrigin(position.tolist())
            image.SetDirection(np.column_stack((geometry.x_axis, geometry.y_axis, geometry.z_axis)).ravel().tolist())
            own = {
                "0008|0018": _uid(content, f"slice {index}"),
                "0020|0013": str(index + 1),
                "0020|0032": "\\".join(f"{value:.10g}" for value in position),
            }
            for tag, value in (common | own).items():
                image.SetMetaData(tag, value)
            writer.SetFileName(str(folder / f"slice_{index + 1:04d}.dcm"))
            writer.Execute(image)


def _draw(one: _Slice, folds: NDArray[np.float64]) -> None:
    """Fill one slice, without blur and noise."""
    one.values[...] = AIR
    _paint_table(one)
    for part in SOFT_TISSUE:
        one.paint(part)
    for part in SKULL:
        one.paint(part, above_base=True)
    for part in (*_jaw(one.z), *JAW_AND_SPINE, *FACE):
        one.paint(part)
    braincase = one.around(CRANIAL_CAVITY)
    if braincase is not None:
        _paint_brain(braincase, folds)


def _paint_brain(one: _Slice, folds: NDArray[np.float64]) -> None:
    """Fluid, a folded rim of grey matter, white matter, then what lies deep in it."""
    distance = CRANIAL_CAVITY.squared_distance(one.x, one.y, one.z)
    cavity = (distance < 1) & one.above_base(SKULL_FLOOR_MM)
    one.values[cavity] = CSF
    angle = np.arctan2(one.y + 4, one.x)
    wave = np.sin(13 * angle + folds[0] + one.z / 5) + np.sin(21 * angle + folds[1] - one.z / 7) * 0.7
    edge = np.sqrt(distance)
    one.values[cavity & (edge < 0.965 + 0.012 * wave)] = GREY_MATTER
    one.values[cavity & (edge < 0.845 + 0.05 * wave)] = WHITE_MATTER
    for part in DEEP_BRAIN:
        one.paint(part, above_base=True)
    # The falx and the fissure it fills part the hemispheres above the ventricles.
    if one.z > -5:
        fissure = cavity & ((np.abs(one.y + 4) > 42) | (one.z > 42))
        one.values[fissure & (np.abs(one.x) < 1.6)] = CSF
        one.values[fissure & (np.abs(one.x) < 0.5)] = FALX


def _jaw(z: float) -> Iterator[Ellipsoid]:
    """The horseshoe of the mandible and the teeth, of beads along an arc."""
    for degrees in range(-78, 79, 6):
        turn = np.deg2rad(degrees)
        x, y = float(42 * np.sin(turn)), float(-30 - 48 * np.cos(turn))
        if -95 < z < -70:
            yield Ellipsoid(BONE, (x, y, -83), (6.5, 6.5, 11))
        if -76 < z < -60 and abs(degrees) < 60:
            yield Ellipsoid(TOOTH, (0.86 * x, y + 3, -68), (3.4, 3.6, 7))
    for side in (-1, 1):
        if -85 < z < -38:
            yield Ellipsoid(BONE, (44.0 * side, -14, -62), (4.5, 13, 24))


def _paint_table(one: _Slice) -> None:
    """A curved head holder under the head: a thin shell around foam."""
    depth = np.where(np.abs(one.x) < 95, one.y - (108 - one.x * one.x / 260), -1)
    one.values[(depth >= 3) & (depth < 9)] = FOAM
    one.values[(depth > 0) & (depth < 3)] = TABLE


def _blurred(plane: Plane) -> Plane:
    """The partial volume of a scanner: a small kernel along rows and columns."""
    for axis in (0, 1):
        ahead, behind = np.roll(plane, 1, axis), np.roll(plane, -1, axis)
        plane = 0.5 * plane + 0.25 * (ahead + behind)
    return plane


def _centres(count: int, spacing: float) -> Plane:
    """Coordinates of voxel centres around the middle, in millimetres."""
    return ((np.arange(count) - (count - 1) / 2) * spacing).astype(np.float32)


def _uid(content: str, what: str) -> str:
    """A DICOM UID under 2.25, the root that anybody may derive UIDs from UUIDs under."""
    return f"2.25.{uuid5(NAMESPACE_OID, f'{content} {what}').int}"
