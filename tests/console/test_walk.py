"""One walk through the console in a real browser, as somebody of the group takes it, from the first account on."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from services.core.volumes import Geometry
from services.core.wire._pb import Model_pb2 as pb
from tests.conftest import MakeDeployment
from tests.console import chromium
from tests.console.bright_model import corner_piece, volume_of
from tests.console.pictures import Slice, agreement, stretched
from tests.console.torchscript import torchscript
from tests.console.viewer_page import ViewerPage
from tests.console.visitor import PASSWORD, SECRET
from tests.deployment import Deployment, request_body

LIMIT_MS = 60_000
HTML = "<img src=x onerror=document.title='owned'> a good contour"
GEOMETRY = Geometry(origin=(-31.0, 44.0, 105.0), spacing=(1.2, 1.0, 2.0))
SLICE = 5
"""One on which two bars of the scan's object meet: no reflection of it looks the same."""
AGREE = 0.9
"""Of areas. The rest is edges, which are interpolated and softened."""


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment) -> Deployment:
    """One that trusts no network, and whose first account the command line has made."""
    made = new_deployment(session_secret=SECRET, keep_inputs="always", trusted_networks="")
    made.start_api().start_worker(until_ready=True)
    said = subprocess.run(
        [sys.executable, "-m", "services.client.cli", "user", "create", "ada", "--role", "admin", "--password-stdin"],
        env=os.environ | made.surroundings_of("segint"),
        input=f"{PASSWORD}\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "created ada as admin\n"
    return made


def log_in(page: Page, deployment: Deployment) -> None:
    page.goto(f"{deployment.url}/admin/")
    page.get_by_label("Account", exact=True).fill("ada")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


@pytest.mark.usefixtures("built_assets")
def test_a_walk_from_login_over_a_new_model_to_its_masks_and_out_again(
    browser: Browser, deployment: Deployment, tmp_path: Path
) -> None:
    context = browser.new_context(viewport=chromium.LAPTOP, device_scale_factor=1)
    context.set_default_timeout(LIMIT_MS)
    page = context.new_page()
    faults: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url) if not request.url.startswith("data:") else None)
    try:
        # Given somebody who logs in, makes a model, and a token for a workstation
        log_in(page, deployment)
        expect(page.get_by_text("For research, not for clinical use.")).to_be_visible()
        make_model(page, tmp_path)
        workstation = deployment.with_token(make_token(page))
        # When the workstation has a volume segmented meanwhile, which it may not without its token
        page.get_by_role("link", name="Jobs", exact=True).click()
        body = request_body(volume_of(corner_piece(), GEOMETRY))
        assert deployment.post("/api/v2/Model/bright%201/segmentation", body).status_code == 401
        job = workstation.submit(body, "bright 1")
        # Then it appears in the list by itself, and ends there
        see_in_list(page, job)
        # And its mask lies where the scan's bright object is
        see_in_viewer(page, deployment, job)
        # And the overview says which worker has the model loaded now
        page.get_by_role("link", name="Overview", exact=True).click()
        expect(page.get_by_role("row", name=re.compile(r"^bright 1 .+:\d+ .+ MiB"))).to_be_visible()
        # And what the user thinks of it is text, whatever they wrote
        feedback = pb.SegmentationFeedback(SegmentationID=str(job), SegmentationAccepted=True, GeneralComments=HTML)
        answers = [
            who.post("/api/v2/Feedback/segmentation", feedback.SerializeToString()).status_code
            for who in (deployment, workstation)
        ]
        assert answers == [401, 200]
        page.get_by_role("link", name="Feedback", exact=True).click()
        expect(page.get_by_text("a good contour")).to_have_count(1)
        assert page.title() != "owned"
        links = page.locator("a[href]").evaluate_all("links => links.map(link => link.href)")
        stolen = cookies_of(context)
        log_out(page)
        # And on the whole way no script was refused or broke, and nothing came from elsewhere
        assert faults == []
        assert [url for url in asked if not url.startswith(deployment.url)] == []
        # And nothing of all that is reachable any more
        nothing_is_reachable(page, deployment, {*asked, *links}, stolen, job)
    finally:
        context.close()


def make_model(page: Page, folder: Path) -> None:
    # When they make a model with a real TorchScript file
    model = folder / "bright.pt"
    model.write_bytes(torchscript())
    page.get_by_role("link", name="New model", exact=True).first.click()
    page.get_by_label("Family: choose one").fill("Bright things")
    page.get_by_label("Accepted modalities").select_option(label="CT")
    page.get_by_text("Constraints, where there are any").click()
    page.get_by_label("Spacing at most, mm").fill("1.5 × 1.5 × 3")
    page.get_by_label("Identifier: what clients name").fill("bright 1")
    page.get_by_label("Runtime", exact=True).select_option("pytorch")
    page.get_by_label("Name", exact=True).fill("Bright")
    page.get_by_label("Colour", exact=True).fill("#ff0000")
    page.get_by_label("FMA code", exact=True).fill("7088")
    page.get_by_label("Model file", exact=True).set_input_files(model)
    page.get_by_role("button", name="Save draft and try it").click()
    # Then the dry run is shown until it has passed, and the model is published
    expect(page.get_by_role("status")).to_have_text("The dry run passed.", timeout=LIMIT_MS)
    expect(page.get_by_label("upload of the artifact")).to_have_attribute("style", "width: 100%;")
    page.get_by_role("button", name="Publish", exact=True).click()
    expect(page.get_by_role("row", name=re.compile("bright 1.*published"))).to_be_visible()
    expect(page.get_by_text("Input channels: CT (CT, spacing in mm up to 1.5 × 1.5 × 3)")).to_be_visible()


def make_token(page: Page) -> str:
    """A token for segmenting and feedback, as it is shown once."""
    page.get_by_role("link", name="API tokens", exact=True).click()
    page.get_by_role("link", name="New token").click()
    page.get_by_label("Name: who or what will use it").fill("workstation-3")
    page.get_by_role("checkbox", name="feedback").check()
    page.get_by_role("button", name="Create", exact=True).click()
    secret = page.get_by_label("Token", exact=True).input_value()
    assert secret.startswith("segint_")
    return secret


def see_in_list(page: Page, job: UUID) -> None:
    row = page.locator(f'tr[data-job="{job}"]')
    expect(row).to_contain_text("succeeded", timeout=LIMIT_MS)
    expect(page.get_by_role("status")).to_have_text("0 running, 0 waiting, 1 listed")
    # And the list does not lose the keyboard's place while it refreshes
    row.get_by_role("link").focus()
    for _ in range(2):
        with page.expect_response(lambda answer: answer.url.endswith("/jobs/live")):
            pass
    assert page.evaluate("document.activeElement.getAttribute('href')").endswith(str(job))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="What happened")).to_be_visible()
    expect(page.get_by_role("cell", name="claimed")).to_be_visible()


def see_in_viewer(page: Page, deployment: Deployment, job: UUID) -> None:
    page.get_by_role("link", name="View scan and masks").click()
    page.wait_for_url(f"**/jobs/{job}/view")
    page.set_viewport_size({"width": 1000, "height": 600})  # the processor draws every pixel
    viewer = ViewerPage(page, deployment).loaded()
    viewer.opaque()
    viewer.choose("Axial")
    i, j, _ = viewer.index_of_place(GEOMETRY)
    place = (i, j, SLICE)
    viewer.walk_to(place, GEOMETRY)
    seen = viewer.scan_and_mask("Axial", "Bright")
    expected = stretched(Slice(corner_piece(), GEOMETRY, "Axial").through(place), seen.frame) & ~seen.marks
    assert agreement(seen.red, seen.bright) > AGREE
    assert agreement(seen.red, expected) > AGREE
    assert agreement(seen.red, expected[:, ::-1]) < AGREE > agreement(seen.red, expected[::-1])
    page.go_back()
    page.set_viewport_size(chromium.LAPTOP)
    expect(page.get_by_role("heading", name="What happened")).to_be_visible()


def cookies_of(context: BrowserContext) -> dict[str, str]:
    return {str(cookie.get("name")): str(cookie.get("value")) for cookie in context.cookies()}


def log_out(page: Page) -> None:
    # When they log out
    page.get_by_label("Open user menu").last.click()
    page.get_by_role("button", name="Logout").last.click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()


def nothing_is_reachable(page: Page, deployment: Deployment, urls: set[str], stolen: dict[str, str], job: UUID) -> None:
    """By the browser, by its way back, and by whoever kept its cookies: none of the addresses of the whole walk."""
    closed = {urlsplit(url).path for url in urls if url.startswith(f"{deployment.url}/admin/")}
    closed = {path for path in closed if not re.match(r"/admin/(static|login|logout)\b", path)}
    viewed = [f"/admin/jobs/{job}/view/{part}" for part in ("description", "channels/0", "structures/0")]
    assert {
        *viewed,
        "/admin/",
        "/admin/jobs",
        "/admin/jobs/live",
        "/admin/feedback/list",
        "/admin/token/list",
    } <= closed
    with httpx.Client(cookies=stolen) as thief:
        for path in sorted(closed):
            answer = thief.get(f"{deployment.url}{path}")
            assert answer.status_code == 303, (path, answer.status_code)
            assert "/admin/login?next=" in answer.headers["location"], path
            assert answer.content == b"", path
    for path in ("/", f"/jobs/{job}", f"/jobs/{job}/view"):
        page.goto(f"{deployment.url}/admin{path}")
        expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    page.go_back()
    expect(page.get_by_text("a good contour")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_the_systems_until_another_is_chosen(
    browser: Browser, deployment: Deployment, scheme: Any
) -> None:
    context = browser.new_context(color_scheme=scheme)
    context.set_default_timeout(LIMIT_MS)
    page = context.new_page()
    try:
        log_in(page, deployment)
        root = page.locator("html")
        expect(root).to_have_attribute("data-bs-theme", scheme)
        page.get_by_label("Change between light and dark").click()
        other = "dark" if scheme == "light" else "light"
        expect(root).to_have_attribute("data-bs-theme", other)
        page.reload()
        expect(root).to_have_attribute("data-bs-theme", other)
    finally:
        context.close()
