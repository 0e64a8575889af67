"""The viewer's page: its controls, what it says when something is missing, and that it asks no other server."""

import gzip
import re
from uuid import UUID, uuid4

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, ConsoleMessage, Page, Route

from services.core.volumes import Geometry, Volume
from services.core.wire._pb import Model_pb2 as pb
from tests.conftest import MakeDeployment
from tests.console.bright_model import BRIGHT, DARK, MODEL, corner_piece, volume_of, with_bright_model
from tests.console.pictures import agreement, is_light, is_red
from tests.console.viewer_page import ViewerPage
from tests.deployment import Deployment, request_body, wait_for

APPLICATION = "tests.console.viewer_app:create_app"

TWO_FAMILY = """{
  "CanonicalName": "Two",
  "FamilyDescription": {"InputChannels": [{"ChannelID": "CT"}, {"ChannelID": "MR"}]},
  "ModelVersions": [{"ID": "two", "Structures": [
    {"Name": "Bone", "StructureID": "bone", "InputChannelID": "CT", "Color": {"R": 255}},
    {"Name": "Tumour", "StructureID": "tumour", "InputChannelID": "MR", "Color": {"R": 255}}
  ]}]
}"""
TWO_MODULE = """
import torch

class Net(torch.nn.Module):
    def forward(self, batch):
        return batch
"""
TWO_OPTIONS = {
    "call": "sliding_window",
    "preprocessing": {"orientation": "LPS", "intensity_window": [-100, 100], "normalisation": "unit_range"},
    "inference": {"patch": [8, 16, 16]},
    "postprocessing": {"decision": "threshold", "threshold": 0.75},
    "mapping": {"Bone": 0, "tumour": 1},
}

pytestmark = pytest.mark.usefixtures("built_assets")


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Scans are kept; there is a model of one channel, and one of two."""
    folder = tmp_path_factory.mktemp("models")
    made = with_bright_model(new_deployment(keep_inputs="always"), folder)
    (folder / "net.py").write_text(TWO_MODULE)
    torch.save({}, folder / "net.pt")
    with made.library() as library:
        library.import_family_json(TWO_FAMILY)
        library.attach("two", runtime="pytorch", file=folder / "net.pt", module=folder / "net.py", options=TWO_OPTIONS)
    return made.start_api().start_api("viewer", application=APPLICATION).start_worker()


@pytest.fixture(scope="module")
def forgetful(new_deployment: MakeDeployment, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Scans are deleted when their job has succeeded, as by default."""
    made = with_bright_model(new_deployment(), tmp_path_factory.mktemp("bright"))
    return made.start_api().start_api("viewer", application=APPLICATION).start_worker()


def segmented(deployment: Deployment, body: bytes = b"", model: str = MODEL) -> UUID:
    job_id = deployment.submit(body or request_body(volume_of(corner_piece(), Geometry())), model)
    assert deployment.finished(job_id, model).error_text == ""
    return job_id


def test_the_page_speaks_to_its_own_server_only_and_breaks_no_rule(deployment: Deployment, page: Page) -> None:
    # Given a browser that tells of every request, and of every complaint, such as one about the page's policy
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))

    def heard(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and "GPU stall" not in message.text:
            complaints.append(message.text)

    page.on("console", heard)
    # When a job is opened, and looked at in every way
    viewer = ViewerPage(page, deployment).open(segmented(deployment))
    for name in ("Axial", "3D", "All four", "Bone", "Auto"):
        viewer.choose(name)
    page.get_by_label("Outlines").check()
    # Then nothing but this server was asked
    assert {url.split("/jobs")[0].split("/viewer/")[0] for url in asked if not url.startswith("data:")} == {viewer.url}
    assert len(asked) >= 7
    assert complaints == []
    # And a structure's name is text, whatever it holds
    assert page.get_by_text("Brightest <img src=x onerror=alert(1)>").count() == 1
    assert page.locator("#structures img").count() == 0
    assert page.get_by_text("Research use only, not for clinical use").is_visible()


def test_windows_and_structures_are_chosen(deployment: Deployment, page: Page) -> None:
    viewer = ViewerPage(page, deployment).open(segmented(deployment))
    # A CT begins with soft tissue
    assert page.get_by_role("radio", name="Soft tissue").is_checked()
    for name, level, width in (("Brain", 40, 80), ("Lung", -600, 1500), ("Bone", 400, 1800), ("Soft tissue", 40, 400)):
        viewer.choose(name)
        shown = (page.get_by_label("Level").input_value(), page.get_by_label("Width").input_value())
        assert shown == (str(level), str(width))
    # What is hidden is not drawn; how much is drawn follows the opacity
    viewer.choose("3D")
    viewer.choose("Axial")
    viewer.opaque()
    assert is_red(viewer.picture()).any()
    page.get_by_label("Opacity").fill("0")
    assert not is_red(viewer.picture()).any()
    page.get_by_label("Outlines").check()
    outline = int(is_red(viewer.picture()).sum())
    viewer.opaque()
    assert 0 < outline < int(is_red(viewer.picture()).sum())
    viewer.hide_all()
    assert not is_red(viewer.picture()).any()
    # Volumes are told: a voxel is a microlitre
    assert re.search(rf"Bright\s+{corner_piece().sum() / 1000:.3g} ml", page.locator("#structures").inner_text())


def test_every_control_is_named_and_is_reached_by_the_keyboard(deployment: Deployment, page: Page) -> None:
    ViewerPage(page, deployment).open(segmented(deployment))
    controls = page.locator("input:visible, button:visible, canvas, summary")
    names = controls.evaluate_all(
        "all => all.map(e => e.ariaLabel || e.textContent.trim() || e.labels?.[0]?.textContent.trim())"
    )
    assert all(names), names
    # When a person tabs through the page
    reached: dict[str, str] = {}
    for _ in range(20):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            """() => {
                const focused = document.activeElement
                const seen = focused.type === 'radio' ? focused.nextElementSibling : focused
                const style = getComputedStyle(seen)
                return [focused.id || focused.name || focused.tagName, `${style.outlineStyle} ${style.outlineWidth}`]
            }"""
        )
        reached[name] = outline
    # Then the canvas and every kind of control has its turn, and is seen to have it
    assert {"canvas", "views", "windows", "centre", "width", "all", "none", "opacity", "outline", "SUMMARY"} <= set(
        reached
    )
    assert {reached[name] for name in reached if name != "BODY"} == {"solid 3px"}


def test_a_laptops_screen_shows_all_of_it(deployment: Deployment, browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    page = context.new_page()
    ViewerPage(page, deployment).open(segmented(deployment))
    width, height = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert (width, height) == (1366, 768)
    assert page.get_by_label("Outlines").is_visible()
    assert page.locator("#place").is_visible()
    context.close()


def test_dark_is_dark(deployment: Deployment, browser: Browser) -> None:
    job_id = segmented(deployment)
    lightness = {}
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 1000, "height": 600}, color_scheme=scheme)
        page = context.new_page()
        ViewerPage(page, deployment).open(job_id)
        color = page.locator("#panel").evaluate("panel => getComputedStyle(panel).backgroundColor")
        lightness[scheme] = sum(int(part) for part in re.findall(r"\d+", color)[:3]) / 3
        context.close()
    assert lightness["light"] > 200
    assert lightness["dark"] < 60


def test_masks_without_their_scan_are_shown_and_claim_no_place(forgetful: Deployment, page: Page) -> None:
    job_id = segmented(forgetful)
    wait_for(lambda: not forgetful.files("segmentation"), "the scan to be deleted")
    viewer = ViewerPage(page, forgetful).open(job_id)
    assert "SEGINT_KEEP_INPUTS=always" in page.locator("#remarks").inner_text()
    # There are no millimetres and no value, only voxels; and no letter beside the picture
    viewer.choose("Axial")
    assert re.fullmatch(r"voxel 2\d, \d+, \d+", viewer.place.split("\n")[0])
    assert not {"mm", "value"} & set(viewer.place.replace("\n", " ").split())
    viewer.opaque()
    picture = viewer.picture()[2:-2]  # without the lines around the canvas
    assert (picture.min(axis=2) > 100).sum() == 0
    # The slice is as it is counted: its first row above, its first column on the left
    assert viewer.place.startswith("voxel 24, 20, 12") or viewer.place.startswith("voxel 23, 19, 12")
    y, x = np.nonzero(is_red(picture))
    assert (y.mean() / picture.shape[0], x.mean() / picture.shape[1]) == pytest.approx((7 / 40, 9 / 48), abs=0.05)


def test_a_mask_of_another_channel_is_shown_in_its_place(deployment: Deployment, page: Page) -> None:
    # Given a CT, and an MR of the same patient that lies the other way round, on a grid of its own
    piece = corner_piece((24, 40, 48))
    ct = Volume(np.where(piece, BRIGHT, DARK).astype(np.int16), Geometry(), "CT")
    turned = Geometry(
        origin=(47.0, 39.0, 0.0), x_axis=(-1.0, 0.0, 0.0), y_axis=(0.0, -1.0, 0.0), spacing=(2.0, 2.0, 2.0)
    )
    coarse = piece[::2, 39::-2, 47::-2]
    mr = Volume(np.where(coarse, BRIGHT, DARK).astype(np.int16), turned, "MR")
    viewer = ViewerPage(page, deployment).open(segmented(deployment, request_body(mr, ct), "two"))
    viewer.opaque()
    viewer.choose("Axial")
    for scan, geometry in (("CT", ct.geometry), ("MR", turned)):
        viewer.choose(scan)
        viewer.walk_to((8, 6, 4) if scan == "CT" else (19, 16, 2), geometry)
        viewer.hide_all()
        _, marks = viewer.frame_and_marks()
        viewer.window(0)
        bright = is_light(viewer.picture()) & ~marks
        assert bright.any()
        # Then the mask of either channel lies on what is bright in this one: exactly, or as nearly as voxels allow
        for structure, least in (("Bone", 0.9 if scan == "CT" else 0.6), ("Tumour", 0.6 if scan == "CT" else 0.9)):
            viewer.hide_all()
            viewer.show(structure)
            assert agreement(bright, is_red(viewer.picture()) & ~marks) > least, (scan, structure)


def voxels_replaced(body: bytes, data: bytes) -> bytes:
    message = pb.ModelInput.FromString(body)
    message.Channels[0].CalibratedVolume.Volume.Data = data
    return message.SerializeToString()


def test_gzip_of_several_members_is_shown(deployment: Deployment, page: Page) -> None:
    # Given a scan as some compressors write it: a member per block, and padding behind the last
    volume = volume_of(corner_piece(), Geometry())
    voxels = volume.voxels.astype("<i2").tobytes()
    members = b"".join(gzip.compress(voxels[start : start + 30_000]) for start in range(0, len(voxels), 30_000))
    job_id = segmented(deployment, voxels_replaced(request_body(volume), members + bytes(64)))
    viewer = ViewerPage(page, deployment).open(job_id)
    viewer.choose("Axial")
    viewer.walk_to((9, 7, 5), volume.geometry)
    assert f"value {BRIGHT}" in viewer.place


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no gzip at all", "not sound gzip"),
        (gzip.compress(bytes(2 * 24 * 40 * 48 - 2)), "fewer than their size says"),
        (gzip.compress(bytes(2 * 24 * 40 * 48 + 2)), "more than their size says"),
        (gzip.compress(bytes(2 * 24 * 40 * 48))[:-9], "not sound gzip|fewer"),
    ],
    ids=["no gzip", "too few", "too many", "cut off"],
)
def test_a_scan_that_cannot_be_inflated_is_said(deployment: Deployment, page: Page, data: bytes, words: str) -> None:
    # Given a job that failed for its voxels, whose request is kept
    body = voxels_replaced(request_body(volume_of(corner_piece(), Geometry())), data)
    job_id = deployment.submit(body, MODEL)
    assert deployment.finished(job_id, MODEL).error_text
    # Then the page says what is wrong, and shows no part of it
    viewer = ViewerPage(page, deployment).open(job_id, state="failed")
    assert re.search(words, viewer.sentence), viewer.sentence
    assert page.get_by_role("alert").is_visible()


def test_a_job_that_does_not_exist_is_said(deployment: Deployment, page: Page) -> None:
    viewer = ViewerPage(page, deployment).open(uuid4(), state="failed")
    assert "There is no segmentation" in viewer.sentence
    viewer.open("%3Cb%3Enot-one", state="failed")
    assert "«<b>not-one» is not a segmentation identifier" in viewer.sentence


def test_a_scan_that_is_deleted_while_it_is_opened_is_said(deployment: Deployment, page: Page) -> None:
    # Given a job whose request disappears between the page's first and second question
    job_id = segmented(deployment)
    request = deployment.volume_dir / "segmentation" / f"{job_id}.pb"

    def deleting(route: Route) -> None:
        request.unlink()
        route.continue_()

    page.route("**/channels/*", deleting)
    viewer = ViewerPage(page, deployment).open(job_id, state="failed")
    assert viewer.sentence == "The scan is not on the server's volume any more."


def test_a_browser_without_webgl_is_told(deployment: Deployment, page: Page) -> None:
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    viewer = ViewerPage(page, deployment).open(segmented(deployment), state="failed")
    assert "no WebGL 2" in viewer.sentence
