"""A browser for tests, which are skipped where there is none; and an administrator."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from services.api.console.viewer.viewer import ASSETS
from tests.console import chromium
from tests.console.visitor import Visitor, visitor
from tests.deployment import Deployment

EXPECT_MILLISECONDS = 60_000
"""Far more than a page needs on a machine that has nothing else to do; Playwright's own 5 s are not."""


@pytest.fixture(scope="session")
def built_assets() -> None:
    """The viewer's script is there."""
    if not (ASSETS / "viewer.js").is_file():
        pytest.skip("the viewer's script is not built: `make console-assets` does that where npm's registry is reached")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, no longer than a module needs it: while it runs, no other test of the process can run an event loop."""
    if chromium.chromium() is None:
        pytest.skip(f"there is no Chromium: `make browser` installs it for root, or {chromium.VARIABLE}=path names one")
    expect.set_options(timeout=EXPECT_MILLISECONDS)
    with chromium.running() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of its own, smaller than a laptop's screen: every pixel is drawn by the processor."""
    context = browser.new_context(viewport={"width": 1000, "height": 600}, device_scale_factor=1)
    context.set_default_timeout(EXPECT_MILLISECONDS)
    yield context.new_page()
    context.close()


@pytest.fixture
def ada(deployment: Deployment) -> Iterator[Visitor]:
    """The administrator of a module's deployment, logged in."""
    with visitor(deployment, "ada") as found:
        yield found
