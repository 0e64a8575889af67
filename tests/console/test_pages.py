"""Every page of the console on a laptop's screen, and with the keyboard alone. The viewer has tests of its own."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import MakeDeployment
from tests.console import chromium
from tests.console.test_walk import LIMIT_MS, log_in
from tests.console.visitor import SECRET, create_account
from tests.deployment import SAMPLE_MODEL, Deployment, request_body

LED_TO = ("/family/edit?pk=1", "/version/detail?pk=1", "/models/family/1")
"""Pages that no menu has."""

ALIKE = 3
"""Tables are one page with other rows: so many of them are walked through, and all are looked at."""

MARKED = """() => {
    const all = document.querySelectorAll(
        "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']"
    )
    const usable = Array.from(all).filter(
        control => !control.disabled && control.tabIndex >= 0 && control.checkVisibility({visibilityProperty: true})
    )
    usable.forEach((control, place) => control.dataset.place = place)
    return usable.length
}"""
"""Numbers whatever can be used, and tells how many there are."""

NAMELESS = """() => Array.from(document.querySelectorAll("[data-place]")).filter(control => {
    const labels = Array.from(control.labels || [])
    const ids = (control.getAttribute("aria-labelledby") || "").split(" ")
    return ![control, ...labels, ...ids.map(id => document.getElementById(id))].some(
        element => element && (element.ariaLabel || element.title || element.innerText?.trim())
    )
}).map(control => control.outerHTML.slice(0, 200))"""
"""What a screen reader would have nothing to say of. A placeholder is gone once something is typed."""

FOCUSED = """() => {
    const focused = document.activeElement
    if (focused === document.body) return null
    const look = () => {
        const style = getComputedStyle(focused)
        return [style.outline, style.boxShadow, style.borderColor, style.backgroundColor].join()
    }
    const box = focused.getBoundingClientRect()
    const inside = box.right > 0 && box.left < innerWidth && box.bottom > 0 && box.top < innerHeight
    const withFocus = look()
    focused.blur()
    const differs = look() !== withFocus
    focused.focus()
    return [focused.dataset.place, inside && differs, focused.outerHTML.slice(0, 200)]
}"""
"""Which has the focus, and whether one sees that it has."""

UNREACHED = """reached => Array.from(document.querySelectorAll("[data-place]"))
    .filter(control => !reached.includes(control.dataset.place) && control.checkVisibility())
    .map(control => control.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment) -> Deployment:
    made = new_deployment(session_secret=SECRET).start_api().import_sample()
    create_account(made, "ada", "admin")
    return made


@pytest.fixture
def screen(browser: Browser, deployment: Deployment) -> Iterator[Page]:
    """A laptop's, of somebody who may see everything, and to whom pages jump instead of gliding."""
    context = browser.new_context(viewport=chromium.LAPTOP, reduced_motion="reduce")
    context.set_default_timeout(LIMIT_MS)
    page = context.new_page()
    log_in(page, deployment)
    yield page
    context.close()


def test_every_page_fits_and_every_control_is_named_and_is_reached_by_the_keyboard(
    screen: Page, deployment: Deployment
) -> None:
    # Given every page that the menu or another page leads to
    job = deployment.submit(request_body(), SAMPLE_MODEL)
    addresses = screen.locator("aside a.nav-link[href], aside a.dropdown-item[href]").evaluate_all(
        "links => links.map(link => link.href).filter(address => !address.endsWith('#'))"
    )
    addresses += [f"{deployment.url}/admin{path}" for path in (*LED_TO, f"/jobs/{job}")]
    tables = [address for address in addresses if address.endswith("/list")]
    assert len(tables) > ALIKE
    faults: dict[str, list[str]] = {}
    for address in dict.fromkeys(addresses):
        # When somebody opens it on a laptop
        answer = screen.goto(address)
        assert answer is not None
        assert answer.status == 200, address
        expect(screen.get_by_role("heading").first).to_be_visible()
        found = faults[address] = []
        # Then it needs no scrolling sideways, and whatever can be used has a name
        if screen.evaluate("document.documentElement.scrollWidth") > chromium.LAPTOP["width"]:
            found.append("wider than the screen")
        count = screen.evaluate(MARKED)
        found += [f"has no name: {control}" for control in screen.evaluate(NAMELESS)]
        # And the keyboard comes to all of it, and one sees where it is
        if address not in tables[ALIKE:]:
            found += by_keyboard(screen, count)
    assert {address: found for address, found in faults.items() if found} == {}


def by_keyboard(screen: Page, count: int) -> list[str]:
    """What somebody misses who presses the tabulator once for each of `count` controls, and a few times more."""
    faults: dict[str, None] = {}
    reached: list[str] = []
    for _ in range(count + 5):
        screen.keyboard.press("Tab")
        focused = screen.evaluate(FOCUSED)
        if focused is not None:
            place, seen, control = focused
            reached.append(place)
            if not seen:
                faults[f"is not seen to have the focus: {control}"] = None
    return [*faults, *(f"is not reached: {control}" for control in screen.evaluate(UNREACHED, reached))]
