from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator

import pytest
from page_rig import PageServer, Watched, find_chromium, without_browser
from states import STATES


@pytest.fixture(scope="session")
def browser():
    """Chromium as the distribution has it."""
    for module in ("playwright", "axe_playwright_python"):
        if importlib.util.find_spec(module) is None:
            without_browser(f"{module} is not installed (scripts/setup)")
    from playwright.sync_api import sync_playwright

    path = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def server():
    server = PageServer(STATES["reading"])
    yield server
    server.close()


@pytest.fixture
def look_at(browser):
    """Opens a page and watches its console; a word there fails the test."""

    @contextlib.contextmanager
    def opened(url: str, *, width: int = 1200, dark: bool = False, zone: str = "Europe/Berlin") -> Iterator[Watched]:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            timezone_id=zone,
            locale="de-DE",
        )
        watched = Watched(context.new_page())
        watched.page.goto(url)
        yield watched
        context.close()
        assert watched.said == []

    return opened
