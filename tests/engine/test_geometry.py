"""Masks in the right place: whatever way a volume lies in the patient, and whatever grid the model works on."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from services.core.errors import InvalidModelInput
from services.core.model_spec import StructureSpec
from services.core.volumes import Geometry, Shape, Vector, Volume
from services.worker.engine.grids import Grid, relabelling
from tests.engine.functions import drawn

INSIDE, AIR = 1000, -1000
"""Half-way is zero, so that an interpolated edge is where the drawn one is."""

CENTRE = np.array([12.0, -31.0, 44.0])
"""Of the anatomy, in patient millimetres."""


def turned(degrees: Vector) -> NDArray[np.float64]:
    """Directions as the columns of a rotation by these angles about x, y and z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        rotation = np.eye(3)
        rotation[one, one] = rotation[other, other] = np.cos(angle)
        rotation[one, other], rotation[other, one] = -np.sin(angle), np.sin(angle)
        matrix = rotation @ matrix
    return matrix


DIRECTIONS: dict[str, NDArray[np.float64]] = {
    "axial": np.eye(3),
    "z negated": np.diag([1.0, 1.0, -1.0]),
    "x and y negated": np.diag([-1.0, -1.0, 1.0]),
    "all negated": -np.eye(3),
    "sagittal": np.eye(3)[:, [1, 2, 0]],
    "coronal, left-handed": np.eye(3)[:, [0, 2, 1]],
    "swapped and negated": np.eye(3)[:, [2, 0, 1]] * [-1.0, 1.0, -1.0],
    "oblique": turned((17, -23, 31)),
    "oblique, negated and swapped": turned((9, 14, -8))[:, [1, 0, 2]] * [1.0, -1.0, -1.0],
}
SHAPE: Shape = (41, 52, 63)
SPACING: Vector = (1.1, 1.3, 1.7)


def geometry(
    directions: NDArray[np.float64], spacing: Vector = SPACING, shape: Shape = SHAPE, shift: float = 0.0
) -> Geometry:
    """A grid around the anatomy's centre, a little off, so that nothing is symmetric by chance."""
    middle = (np.array(shape[::-1]) - 1) / 2 + [1.2, -0.7, 0.4] + shift
    origin = CENTRE - directions @ (middle * spacing)
    x_axis, y_axis, z_axis = (vector(column) for column in directions.T)
    return Geometry(vector(origin), x_axis, y_axis, z_axis, spacing)


def vector(values: NDArray[np.float64]) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z


def places(where: Geometry, shape: Shape) -> NDArray[np.float64]:
    """The patient's millimetres of each voxel: shape (depth, height, width, 3)."""
    z, y, x = np.indices(shape)
    index = np.stack([x, y, z, np.ones(shape)], axis=-1)
    return (index @ where.index_to_patient().T)[..., :3]


def anatomy(millimetres: NDArray[np.float64]) -> NDArray[np.bool_]:
    """An organ without any symmetry, smooth enough for 0.99: an ellipsoid with a bump on one side."""
    x, y, z = np.moveaxis(millimetres - CENTRE, -1, 0)
    body = (x / 21) ** 2 + (y / 17) ** 2 + (z / 24) ** 2 < 1
    bump = ((x - 14) / 12) ** 2 + ((y + 8) / 11) ** 2 + ((z - 10) / 13) ** 2 < 1
    return np.asarray(body | bump)


def scanned(where: Geometry, shape: Shape = SHAPE, name: str = "CT") -> Volume:
    """The organ as a scanner sees it."""
    return Volume(np.where(anatomy(places(where, shape)), INSIDE, AIR).astype(np.int16), where, name)


def bright(batch: torch.Tensor) -> torch.Tensor:
    """The network: what is above zero in the last channel."""
    return (batch[:, -1:] > 0).float()


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def centroid_off(mask: NDArray[np.bool_], where: Geometry) -> float:
    """How far the mask's centroid is from the drawn one's, in the smallest voxel's edges."""
    depth, height, width = mask.shape
    millimetres = places(where, (depth, height, width))
    apart = millimetres[mask].mean(axis=0) - millimetres[anatomy(millimetres)].mean(axis=0)
    return float(np.linalg.norm(apart) / min(where.spacing))


@pytest.mark.parametrize("orientation", [None, "LPS", "RAS", "PIR", "SLA"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("call", ["tensor", "sliding_window"])
def test_where_nothing_is_resampled_every_voxel_comes_back(call: str, direction: str, orientation: str | None) -> None:
    # Given a scan that lies in any way, and a model that wants it in any other
    where = geometry(DIRECTIONS[direction])
    options = {"call": call, "preprocessing": {"orientation": orientation}}
    if call == "sliding_window":
        options["inference"] = {"patch": [16, 24, 32], "overlap": 0.3}
    # When it marks what it sees, Then that is exactly what was drawn
    (mask,) = drawn(bright, [scanned(where)], options)
    np.testing.assert_array_equal(mask, anatomy(places(where, SHAPE)))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("orientation", "towards"), [("LPS", (1, 1, 1)), ("RAS", (-1, -1, 1)), ("LAI", (1, -1, -1))])
def test_the_model_sees_the_patient_the_way_it_wants(
    direction: str, orientation: str, towards: tuple[int, int, int]
) -> None:
    """A network that marks where its own x, y or z is above the middle marks that side of the patient."""
    where = geometry(DIRECTIONS[direction])
    volume = scanned(where)
    middle = places(where, SHAPE).reshape(-1, 3).mean(axis=0)
    for axis, sign in enumerate(towards):

        def far_half(batch: torch.Tensor, dimension: int = 4 - axis) -> torch.Tensor:
            length = batch.shape[dimension]
            shape = [length if d == dimension else 1 for d in range(5)]
            return (torch.arange(length).reshape(shape) > (length - 1) / 2).float().expand_as(batch)

        (mask,) = drawn(far_half, [volume], {"call": "tensor", "preprocessing": {"orientation": orientation}})
        marked = places(where, SHAPE)[mask].mean(axis=0) - middle
        # The marked half lies towards that side, more than towards any other
        assert int(np.argmax(np.abs(marked))) == axis
        assert np.sign(marked[axis]) == sign


@pytest.mark.parametrize(
    ("direction", "other"),
    [*((direction, "oblique") for direction in DIRECTIONS), ("oblique", "sagittal"), ("sagittal", "all negated")],
)
def test_a_channel_on_another_grid_is_met_in_the_patient(direction: str, other: str) -> None:
    # Given two scans of one patient, the second on a grid of its own, which alone shows the organ
    shapes = (97, 101, 105), (106, 103, 99)
    first, second = (
        geometry(DIRECTIONS[name], (0.6, 0.65, 0.7), shape, shift)
        for name, shape, shift in zip((direction, other), shapes, (0.0, 0.27), strict=True)
    )
    empty = Volume(np.full(shapes[0], AIR, np.int16), first, "CT")
    volumes = [empty, scanned(second, shapes[1], "MR")]
    structures = (StructureSpec("on the first", "1", 0), StructureSpec("on the second", "2", 1))
    # When a model that works on the first one's grid marks it, once for each grid
    masks = drawn(lambda batch: bright(batch).repeat(1, 2, 1, 1, 1), volumes, {"call": "tensor"}, structures)
    # Then it is where it was drawn, on both: what is lost is a part of a voxel at the edge, twice interpolated
    for mask, where, shape in zip(masks, (first, second), shapes, strict=True):
        assert dice(mask, anatomy(places(where, shape))) >= 0.99
        assert centroid_off(mask, where) < 0.5


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.3, 1.9, 3.1), (0.7, 0.8, 0.9)])
def test_resampled_there_and_back_it_stays_in_place(direction: str, spacing: Vector) -> None:
    where = geometry(DIRECTIONS[direction])
    options = {"call": "tensor", "preprocessing": {"orientation": "LPS", "spacing": spacing}}
    (mask,) = drawn(bright, [scanned(where)], options)
    assert centroid_off(mask, where) < 0.5
    # Half-way between two voxels is decided at each of two samplings: no better than the coarser grid can show
    assert dice(mask, anatomy(places(where, SHAPE))) >= (0.95 if max(spacing) > max(SPACING) else 0.97)


def test_the_model_gets_the_spacing_that_it_wants() -> None:
    where = geometry(DIRECTIONS["sagittal"])
    shapes = []

    def look(batch: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(batch.shape[2:]))
        return bright(batch)

    options = {"call": "tensor", "preprocessing": {"orientation": "LPS", "spacing": [2.0, 3.0, 4.0]}}
    drawn(look, [scanned(where)], options)
    # x of the patient is the scan's z, y its x, z its y
    x, y, z = 41 * 1.7 / 2.0, 63 * 1.1 / 3.0, 52 * 1.3 / 4.0
    assert shapes == [(round(z), round(y), round(x))]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda g: g, True),
        (lambda g: Geometry(g.origin, g.x_axis, g.y_axis, g.z_axis, (1.1, 1.3, 1.7000001)), True),
        (lambda g: Geometry(g.origin, g.x_axis, g.y_axis, g.z_axis, (1.1, 1.3, 1.71)), False),
        (lambda g: Geometry((g.origin[0] + 0.6, *g.origin[1:]), g.x_axis, g.y_axis, g.z_axis, g.spacing), False),
    ],
    ids=["itself", "within rounding", "another spacing", "half a voxel off"],
)
def test_grids_are_the_same_only_where_no_mask_could_tell(change: Callable[[Geometry], Geometry], same: bool) -> None:
    volume = scanned(geometry(DIRECTIONS["axial"]))
    other = Volume(volume.voxels, change(volume.geometry))
    assert (relabelling(Grid.of_volume(volume), Grid.of_volume(other)) is not None) == same


FLAT = Geometry(x_axis=(1.0, 0.0, 0.0), y_axis=(1.0, 0.0, 0.0))


def test_a_volume_whose_axes_span_nothing_is_used_as_it_is_or_refused() -> None:
    volume = Volume(scanned(geometry(DIRECTIONS["axial"])).voxels, FLAT, "CT")
    # Where voxels need not be placed, they are not
    (mask,) = drawn(bright, [volume], {"call": "tensor"})
    np.testing.assert_array_equal(mask, volume.voxels > 0)
    # where they have to be, it is said
    with pytest.raises(InvalidModelInput, match="three independent axes"):
        drawn(bright, [volume, scanned(geometry(DIRECTIONS["oblique"]), name="MR")], {"call": "tensor"})


@pytest.mark.parametrize("shape", [(1, 33, 29), (7, 1, 5), (1, 1, 1)])
def test_a_single_slice_has_a_place_too(shape: Shape) -> None:
    where = geometry(DIRECTIONS["oblique"], shape=shape)
    volume = Volume(np.full(shape, INSIDE, np.int16), where, "CT")
    options = {"call": "tensor", "preprocessing": {"orientation": "RAS", "spacing": [0.5, 0.5, 0.5]}}
    (mask,) = drawn(bright, [volume], options)
    assert mask.all()
