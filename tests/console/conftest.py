"""A browser: Debian's Chromium, without a screen or a graphics card. Tests that need it are skipped where it is not."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from services.api.console.viewer.viewer import ASSETS

CHROMIUM_VARIABLE = "CHROMIUM"

OPTIONS = (
    "--no-sandbox",  # which Chromium refuses to have as root; the pages here are our own
    # WebGL on the processor
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)


def chromium_or_skip() -> str:
    """Where Chromium is."""
    path = os.environ.get(CHROMIUM_VARIABLE) or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip(
            f"there is no Chromium: `make browser` installs it for root, or name one with {CHROMIUM_VARIABLE}=path"
        )
    return path


@pytest.fixture(scope="session")
def built_assets() -> None:
    """The viewer's script is there."""
    if not (ASSETS / "viewer.js").is_file():
        pytest.skip("the viewer's script is not built: `make console-assets` does that where npm's registry is reached")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium."""
    path = chromium_or_skip()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(OPTIONS))
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of its own, smaller than a laptop's screen: every pixel is drawn by the processor."""
    context = browser.new_context(viewport={"width": 1000, "height": 600}, device_scale_factor=1)
    context.set_default_timeout(15_000)
    yield context.new_page()
    context.close()
