"""Fixtures for tests in Chromium, which record requests and errors of a page.

    def test_page(open_page):
        watched = open_page("file:///...", width=390, dark=True)
        watched.page.click("text=Play")
        assert watched.problems == []
        assert watched.outside("file:///") == []

Tests are skipped if Chromium or playwright is not installed.
"""

import shutil
import time
from dataclasses import dataclass, field

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Watched:
    """A page, the addresses it requested, and its exceptions and console errors."""

    page: "playwright.sync_api.Page"  # noqa: F821
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def outside(self, *allowed):
        """Return requests to addresses that do not begin with one of `allowed`; data and blob URLs are ignored."""
        return [address for address in self.requests if not address.startswith(("data:", "blob:", *allowed))]


def until(page, expression, seconds=60):
    """Wait until an expression holds. `wait_for_function` needs `eval`, which a policy may block."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"not within {seconds} s: {expression}"
        page.wait_for_timeout(20)


@pytest.fixture(scope="session")
def chromium():
    """The browser."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """A function that opens an address in a new window and returns it `Watched`; closed after the test."""
    yield from _opener(chromium)


@pytest.fixture(scope="module")
def open_shared_page(chromium):
    """Like `open_page`, but windows stay open until the module's last test, as opening takes most of the time."""
    yield from _opener(chromium)


def _opener(chromium):
    contexts = []

    def open_(address=None, width=1280, height=900, dark=False, reduced_motion=False):
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce" if reduced_motion else "no-preference",
        )
        contexts.append(context)
        watched = Watched(context.new_page())
        watched.page.set_default_timeout(60_000)
        watched.page.on("request", lambda request: watched.requests.append(request.url))
        watched.page.on("pageerror", lambda error: watched.problems.append(f"exception: {error}"))
        watched.page.on("console", lambda said: _note(watched, said))
        if address is not None:
            watched.page.goto(address)
        return watched

    yield open_
    for context in contexts:
        context.close()


def _note(watched, said):
    if said.type in ("error", "warning"):
        watched.problems.append(f"{said.type}: {said.text}")
