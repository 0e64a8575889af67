"""Debian's Chromium, without a screen and without a graphics card."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, ViewportSize, sync_playwright

VARIABLE = "CHROMIUM"
"""Names another one than the one on PATH."""

OPTIONS = (
    "--no-sandbox",  # which Chromium refuses to have as root; the pages here are our own
    # WebGL on the processor
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)

LAPTOP: ViewportSize = {"width": 1366, "height": 768}


def chromium() -> str | None:
    """Where it is."""
    return os.environ.get(VARIABLE) or shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def running() -> Iterator[Browser]:
    """It, for as long as the context lasts."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(OPTIONS))
        yield browser
        browser.close()
