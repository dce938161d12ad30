"""Real collectors that the status page is looked at of, and what a browser waits for there."""

from __future__ import annotations

from pathlib import Path

from harness import Collector, Service, wait_until
from page_rig import Watched, screenshot_folder

from collector.simulator.settings import SimulatorSettings

USUAL = {"status.listen": "127.0.0.1:0", "log.format": "json", "run.decoders": 1}


class Play:
    """A service and a collector beside it, which has a page."""

    def __init__(self, folder: Path, *, wait_s: float = 3.0, settings: dict[str, object], **service) -> None:
        folder.mkdir()
        self.service = Service(SimulatorSettings(**{"seed": 7, "heartbeat_s": 0.2, "ghost_s": 0.2} | service))
        self.collector = Collector(self.service, folder, wait_s=wait_s, settings=USUAL | settings)
        self.collector.start()

    @property
    def url(self) -> str:
        wait_until(lambda: self.collector.events("page.opened"), "the page")
        return self.collector.events("page.opened")[-1]["url"]

    def close(self) -> None:
        if self.collector.process.poll() is None:
            self.collector.kill_all()
        print(self.collector.log)
        self.service.close()


def until_it_says(at: Watched, state: str, sentence: str = "") -> None:
    """The state's word, and what the sentence begins with."""
    at.until(
        """([state, sentence]) => document.getElementById('state').textContent === state
            && document.getElementById('sentence').textContent.startsWith(sentence)""",
        [state, sentence],
    )


def shot(at: Watched, name: str, tmp_path: Path) -> None:
    at.page.screenshot(path=screenshot_folder(tmp_path) / f"real-{name}.png", full_page=True)
