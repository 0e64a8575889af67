"""Masks are shown where they belong: on the scan's own bright object, and where the patient's geometry says it is."""

from uuid import UUID

import numpy as np
import pytest
from playwright.sync_api import Page

from services.core.volumes import Geometry
from tests.client.conftest import SKEWED
from tests.conftest import MakeDeployment
from tests.console.bright_model import BRIGHT, BRIGHTEST, MODEL, corner_piece, volume_of, with_bright_model
from tests.console.pictures import VIEWS, Slice, agreement, deepest, is_blue, stretched
from tests.console.viewer_page import ViewerPage
from tests.deployment import Deployment, request_body

APPLICATION = "tests.console.viewer_app:create_app"
ORIGIN, SPACING = (-31.0, 44.0, 105.0), (1.2, 1.0, 2.0)

AGREE = 0.9
"""Of areas. The rest is edges: the scan is interpolated between voxels, and the masks' edges are softened."""


def along(*axes: tuple[float, float, float]) -> Geometry:
    x, y, z = axes
    return Geometry(ORIGIN, x, y, z, SPACING)


def columns(matrix: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Geometry:
    return along(*((float(axis[0]), float(axis[1]), float(axis[2])) for axis in matrix.T))


# The plain axial one is looked at in the walk through the console.
GEOMETRIES = {
    "prone, slices downwards": along((-1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "sagittal": along((0, 1, 0), (0, 0, -1), (1, 0, 0)),
    "oblique and negated": columns(SKEWED @ np.diag([-1.0, 1.0, -1.0])),
}

CORNER = (9, 7, 5)
"""The voxel (i, j, k) where the three bars meet."""


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    made = with_bright_model(new_deployment(keep_inputs="always"), tmp_path_factory.mktemp("bright"))
    return made.start_api().start_api("viewer", application=APPLICATION).start_worker()


def segmented(deployment: Deployment, geometry: Geometry) -> UUID:
    job_id = deployment.submit(request_body(volume_of(corner_piece(), geometry)), MODEL)
    assert deployment.finished(job_id, MODEL).error_text == ""
    return job_id


@pytest.mark.usefixtures("built_assets")
@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_mask_lies_on_what_it_was_drawn_on(deployment: Deployment, page: Page, name: str) -> None:
    # Given a scan whose bright object the model has drawn: three bars of which no reflection looks the same
    geometry, piece = GEOMETRIES[name], corner_piece()
    viewer = ViewerPage(page, deployment).open(segmented(deployment, geometry))
    viewer.opaque()
    # When a person goes there by the keys, and looks at it from each side
    viewer.choose("Axial")
    viewer.walk_to(CORNER, geometry)
    assert viewer.index_of_place(geometry) == CORNER
    assert f"voxel {CORNER[0]}, {CORNER[1]}, {CORNER[2]}\nvalue {BRIGHT}\nBright" in viewer.place
    for view in VIEWS:
        seen = viewer.scan_and_mask(view, "Bright")
        frame, marks, red = seen.frame, seen.marks, seen.red
        viewer.show("Brightest")
        blue = is_blue(viewer.picture()) & ~marks
        # Then the mask covers the bright object, and both are where they are in the patient
        expected = stretched(Slice(piece, geometry, view).through(CORNER), frame) & ~marks
        assert agreement(seen.bright, red) > AGREE, view
        assert agreement(red, expected) > AGREE, view
        # No reflection of it would be
        assert agreement(red, expected[:, ::-1]) < AGREE > agreement(red, expected[::-1]), view
        # And the other structure, which is smaller, covers what is its own
        brightest = volume_of(piece, geometry).voxels == BRIGHTEST
        expected = stretched(Slice(brightest, geometry, view).through(CORNER), frame) & ~marks
        assert expected.any() == blue.any()
        assert not expected.any() or agreement(blue, expected) > AGREE, view
        # And a click on the mask goes to a voxel of it
        viewer.click(*deepest(red))
        i, j, k = viewer.index_of_place(geometry)
        assert piece[k, j, i]
        viewer.walk_to(CORNER, geometry)
