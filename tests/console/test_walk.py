"""One walk through the console in a real browser, as somebody of the group takes it."""

import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from playwright.sync_api import Browser, Page, expect

from services.core.db import feedback as feedback_rows
from services.core.feedback import Feedback
from tests.conftest import MakeDeployment
from tests.console.test_models import torchscript
from tests.console.visitor import PASSWORD, SECRET, create_account
from tests.deployment import Deployment, request_body, small_volume

LIMIT_MS = 60_000
HTML = "<img src=x onerror=document.title='owned'> a good contour"


@pytest.fixture
def deployment(own_deployment: MakeDeployment) -> Deployment:
    made = own_deployment(session_secret=SECRET).start_api().start_worker(until_ready=True)
    create_account(made, "ada", "admin")
    return made


def log_in(page: Page, deployment: Deployment) -> None:
    page.goto(f"{deployment.url}/admin/")
    page.get_by_label("Account", exact=True).fill("ada")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def test_a_walk_from_login_over_a_new_model_to_a_job_and_out_again(
    browser: Browser, deployment: Deployment, tmp_path: Path
) -> None:
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    context.set_default_timeout(LIMIT_MS)
    page = context.new_page()
    faults: list[str] = []
    foreign: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: foreign.append(request.url) if deployment.url not in request.url else None)
    try:
        # Given somebody who logs in
        log_in(page, deployment)
        expect(page.get_by_text("For research, not for clinical use.")).to_be_visible()
        make_model(page, tmp_path)
        # When a workstation has a volume segmented meanwhile
        page.get_by_role("link", name="Jobs", exact=True).click()
        job = deployment.submit(request_body(small_volume(channel_id="CT")), "bright 1")
        # Then it appears in the list by itself, and ends there
        row = page.locator(f'tr[data-job="{job}"]')
        expect(row).to_contain_text("succeeded", timeout=LIMIT_MS)
        # And the list does not lose the keyboard's place while it refreshes
        row.get_by_role("link").focus()
        with page.expect_response(lambda answer: answer.url.endswith("/jobs/live")):
            pass
        with page.expect_response(lambda answer: answer.url.endswith("/jobs/live")):
            pass
        assert page.evaluate("document.activeElement.getAttribute('href')").endswith(str(job))
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="What happened")).to_be_visible()
        expect(page.get_by_role("cell", name="claimed")).to_be_visible()
        # And what the user thinks of it is text, whatever they wrote
        say(deployment, Feedback(segmentation_id=str(job), comments=HTML, score=4.0))
        page.get_by_role("link", name="Feedback", exact=True).click()
        expect(page.get_by_text("a good contour").first).to_be_visible()
        assert page.title() != "owned"
        log_out(page, deployment, job)
        # And on the whole way no script was refused or broke, and nothing came from elsewhere
        assert faults == []
        assert foreign == []
    finally:
        context.close()


def make_model(page: Page, folder: Path) -> None:
    # When they make a model with a real TorchScript file
    model = folder / "bright.pt"
    model.write_bytes(torchscript())
    page.get_by_role("link", name="New model", exact=True).first.click()
    page.get_by_label("Family: choose one").fill("Bright things")
    page.get_by_label("Identifier: what clients name").fill("bright 1")
    page.get_by_label("Runtime", exact=True).select_option("pytorch")
    page.get_by_label("Name", exact=True).fill("Bright")
    page.get_by_label("Colour", exact=True).fill("#00ff88")
    page.get_by_label("FMA code", exact=True).fill("7088")
    page.get_by_label("Model file", exact=True).set_input_files(model)
    page.get_by_role("button", name="Save draft and try it").click()
    # Then the dry run is shown until it has passed, and the model is published
    expect(page.get_by_role("status")).to_have_text("The dry run passed.", timeout=LIMIT_MS)
    page.get_by_role("button", name="Publish", exact=True).click()
    expect(page.get_by_role("row", name=re.compile("bright 1.*published"))).to_be_visible()


def log_out(page: Page, deployment: Deployment, job: UUID) -> None:
    # When they log out
    page.get_by_label("Open user menu").last.click()
    page.get_by_role("button", name="Logout").last.click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    # Then nothing is reachable any more, by address or by the browser's way back
    for path in ("/", "/jobs", f"/jobs/{job}", "/feedback/list", "/models"):
        page.goto(f"{deployment.url}/admin{path}")
        expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    page.go_back()
    expect(page.get_by_text("a good contour")).to_have_count(0)


def say(deployment: Deployment, feedback: Feedback) -> None:
    database = deployment.database()
    try:
        database.run(feedback_rows.store_feedback, feedback)
    finally:
        database.close()


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
