"""The viewer's page, as a person uses it."""

import re
from dataclasses import dataclass
from typing import Self
from uuid import UUID

import numpy as np
from playwright.sync_api import Locator, Page

from services.core.volumes import Geometry
from tests.console.pictures import BACK, DOWN, LEFT, Pixels, Plane, is_light, is_red, nearest_axis, picture
from tests.console.viewer_app import PREFIX
from tests.deployment import Deployment

LOAD_MILLISECONDS = 240_000
BLACK, WHITE = 30_000, -30_000
"""Levels at which any volume is all black or all white."""


@dataclass(frozen=True)
class ScanAndMask:
    """One view's picture, taken apart."""

    frame: Plane
    """Where the slice is drawn."""
    marks: Plane
    """Where letters and the crosshair are, which the next two are without."""
    bright: Plane
    red: Plane


class ViewerPage:
    """One job's page."""

    def __init__(self, page: Page, deployment: Deployment) -> None:
        self.page = page
        self.url = (
            f"{deployment.at('viewer').url}{PREFIX}" if "viewer" in deployment.ports else f"{deployment.url}/admin"
        )

    def open(self, job_id: UUID | str, state: str = "shown") -> Self:
        """Go there, and wait until all is shown, or until it has said why not."""
        self.page.goto(f"{self.url}/jobs/{job_id}/view")
        return self.loaded(state)

    def loaded(self, state: str = "shown") -> Self:
        """Wait until all is shown, or until it has said why not."""
        self.page.wait_for_selector("body:not([data-state=loading])", timeout=LOAD_MILLISECONDS)
        assert self.page.locator("body").get_attribute("data-state") == state, self.sentence
        return self

    @property
    def sentence(self) -> str:
        return self.page.locator("#sentence").inner_text()

    @property
    def place(self) -> str:
        return self.page.locator("#place").inner_text()

    @property
    def canvas(self) -> Locator:
        return self.page.locator("#canvas")

    def choose(self, name: str) -> None:
        """Take the choice of that name: a view, a window, a scan."""
        self.page.get_by_role("radio", name=name, exact=True).check(force=True)

    def window(self, level: float, width: float = 200) -> None:
        self.page.get_by_label("Level").fill(f"{level:g}")
        self.page.get_by_label("Width").fill(f"{width:g}")
        self.page.get_by_label("Width").press("Enter")

    def picture(self) -> Pixels:
        return picture(self.canvas)

    def hide_all(self) -> None:
        self.page.get_by_role("button", name="Hide all").click()

    def show(self, name: str) -> None:
        self.page.get_by_role("checkbox", name=re.compile(rf"^{name}\b")).check()

    def opaque(self) -> None:
        """Draw masks so that nothing shines through."""
        self.page.get_by_label("Opacity").fill("100")

    def frame_and_marks(self) -> tuple[Plane, Plane]:
        """Without masks: where the slice is drawn, and where letters and the crosshair are."""
        self.window(WHITE)
        white = is_light(self.picture())
        self.window(BLACK)
        marks = is_light(self.picture())
        return white & ~marks, marks

    def scan_and_mask(self, view: str, structure: str) -> "ScanAndMask":
        """In that view, with the crosshair where it is: what is bright of the scan, and where a red mask lies."""
        self.choose(view)
        self.hide_all()
        frame, marks = self.frame_and_marks()
        self.window(0)
        bright = is_light(self.picture()) & ~marks
        self.show(structure)
        return ScanAndMask(frame, marks, bright, is_red(self.picture()) & ~marks)

    def click(self, x: int, y: int) -> None:
        self.canvas.click(position={"x": x, "y": y})

    def index_of_place(self, geometry: Geometry) -> tuple[int, int, int]:
        """The voxel (i, j, k) where the crosshair is, by its millimetres alone."""
        found = re.search(r"([LR]) ([\d.]+), ([AP]) ([\d.]+), ([SI]) ([\d.]+) mm", self.place)
        assert found, self.place
        signs = {"L": 1, "R": -1, "P": 1, "A": -1, "S": 1, "I": -1}
        patient = [signs[found[at]] * float(found[at + 1]) for at in (1, 3, 5)]
        i, j, k, _ = np.rint(np.linalg.solve(geometry.index_to_patient(), [*patient, 1.0])).astype(int)
        return int(i), int(j), int(k)

    def walk_to(self, index: tuple[int, int, int], geometry: Geometry) -> None:
        """Bring the crosshair to voxel (i, j, k) with the keys for left and right, front and back, up and down."""
        here = self.index_of_place(geometry)
        self.canvas.focus()
        for direction, keys in ((LEFT, "Left Right"), (BACK, "Up Down"), (DOWN, "PageUp PageDown")):
            axis, turned = nearest_axis(geometry, direction)
            steps = (index[axis] - here[axis]) * (-1 if turned else 1)
            name = keys.split()[steps > 0]
            for _ in range(abs(steps)):
                self.page.keyboard.press(name if name.startswith("Page") else f"Arrow{name}")
