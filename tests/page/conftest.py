from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from page_rig import PageServer, Watched, find_chromium, without_browser
from real_rig import Play
from states import HOSTILE, STATES

from collector.simulator.hits import Hits

LookAt = Callable[..., AbstractContextManager[Watched]]


@pytest.fixture(scope="module")
def look_at() -> Iterator[LookAt]:
    """Opens a page in Chromium, as the distribution has it; a word in its console is a fault.

    Not for the whole session: while it lives its event loop runs in this thread, and no other can.
    """
    for module in ("playwright", "axe_playwright_python"):
        if importlib.util.find_spec(module) is None:
            without_browser(f"{module} is not installed (scripts/setup)")
    from axe_playwright_python.base import AXE_SCRIPT  # noqa: PLC0415 - skipped where it is not installed
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    path = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])

        @contextlib.contextmanager
        def opened(url: str, *, width: int = 1200, dark: bool = False) -> Iterator[Watched]:
            context = browser.new_context(
                viewport={"width": width, "height": 900},
                color_scheme="dark" if dark else "light",
                timezone_id="Europe/Berlin",
                locale="de-DE",
            )
            context.add_init_script(AXE_SCRIPT)
            watched = Watched(context.new_page())
            watched.page.goto(url)
            yield watched
            context.close()
            assert watched.said == []

        yield opened
        browser.close()


@pytest.fixture
def server() -> Iterator[PageServer]:
    server = PageServer(STATES["reading"])
    yield server
    server.close()


@pytest.fixture(scope="session")
def quiet(tmp_path_factory) -> Iterator[Play]:
    """Started first, looked at last: after a minute without a hit."""
    folder = tmp_path_factory.mktemp("quiet")
    lines = Hits(7).lines(0, 50)
    lines[25:25] = [text.encode().replace(b"\r\n", b"\t") for text in HOSTILE]
    (folder / "hits.jsonl").write_bytes(b"\n".join(lines))
    play = Play(folder / "run", file=folder / "hits.jsonl", hits_per_second=1000.0, settings={})
    yield play
    play.close()
