"""The status page in Chromium, served as the collector serves it, with what a test says the status is."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import shutil
import threading
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from collector.coordinator import page

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 20_000
"""A guard, far above what anything here takes."""

SCREENSHOTS = "PAGE_SCREENSHOTS"
"""Environment variable: the folder that screenshots are kept in."""


def without_browser(reason: str) -> None:
    """What is missing is a skip locally and a failure in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}: CI must have it")
    pytest.skip(reason)


def find_chromium() -> str:
    found = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if found is None:
        without_browser("Chromium is not installed (on Debian: apt-get install chromium)")
    assert found is not None
    return found


class PageServer:
    """``/``, its files and ``/events`` on a thread of its own; it leaves and returns as a collector does."""

    def __init__(self, status: bytes) -> None:
        self.port = 0
        self._status = status
        self._count = 0
        self.moment = ""
        """Of what was said last."""
        self.connections = 0
        """Requests for events so far."""
        self._listeners: set[asyncio.Queue[bytes | None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.return_()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def say(self, status: bytes) -> str:
        """To every page that listens, and to each that comes. Gives the moment that a page shows with it.

        Each is said a millisecond after the one before, so that no two have the same moment.
        """
        said = msgspec.json.decode(status)
        self._count += 1
        said["at_us"] += self._count * 1000
        self._loop.call_soon_threadsafe(self._say, msgspec.json.encode(said))
        at = dt.datetime.fromtimestamp(said["at_us"] // 1000 / 1000, dt.UTC)
        self.moment = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return self.moment

    def leave(self) -> None:
        self._call(self._stop())

    def return_(self) -> None:
        self._call(self._start())

    def close(self) -> None:
        self.leave()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_MS / 1000)

    def _say(self, status: bytes) -> None:
        self._status = status
        for listener in self._listeners:
            listener.put_nowait(status)

    async def _start(self) -> None:
        app = web.Application()
        for path, file in page.files().items():
            app.router.add_get(path, _handler(file))
        app.router.add_get("/events", self._events)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        for listener in self._listeners:
            listener.put_nowait(None)
        await self._runner.cleanup()

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **page.HEADERS})
        said: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.connections += 1
        if self._status:
            said.put_nowait(self._status)
        self._listeners.add(said)
        with contextlib.suppress(ConnectionResetError):
            await response.prepare(request)
            try:
                while (status := await said.get()) is not None:
                    await response.write(b"data: " + status + b"\n\n")
            finally:
                self._listeners.discard(said)
        return response


def _handler(file: page.PageFile):
    async def answer(_: web.Request) -> web.Response:
        return web.Response(
            body=file.body, headers={"Content-Type": f"{file.content_type}; charset=utf-8", **page.HEADERS}
        )

    return answer


def screenshot_folder(tmp_path: Path) -> Path:
    folder = Path(os.environ.get(SCREENSHOTS, tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Watched:
    """A page and all that it says to the console."""

    def __init__(self, page) -> None:
        self.page = page
        page.set_default_timeout(PATIENCE_MS)
        self.said: list[str] = []
        self.gone_is_expected = False
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("pageerror", lambda error: self._said("error", str(error)))
        page.on("dialog", lambda dialog: self._said("dialog", dialog.message))

    def _said(self, kind: str, text: str) -> None:
        """That a request failed is said by the browser itself, whatever the page does about it."""
        if not (self.gone_is_expected and "net::ERR_" in text):
            self.said.append(f"{kind}: {text}")

    def until(self, script: str, argument: object = None) -> None:
        self.page.wait_for_function(script, arg=argument)

    def until_shown(self, moment: str) -> None:
        """What was said at this moment is what the page shows."""
        self.until("moment => document.getElementById('as-of').dateTime === moment", moment)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()

    def faults(self) -> list[str]:
        """What axe-core finds, contrast included."""
        found = self.page.evaluate("axe.run().then(found => found.violations)")
        return [f"{each['id']}: {node['html']}" for each in found for node in each["nodes"]]

    def overflows(self) -> bool:
        return self.page.evaluate("document.documentElement.scrollWidth > innerWidth")
