"""A file system that is really small, and can be really full."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from pathlib import Path

import pytest
from harness import PATIENCE_S

MIB = 1 << 20

FILL_S = 0.002
"""How long anything that is given up stays free."""


class SmallDisk:
    """A tmpfs in a mount namespace of its own, which one sleeping process holds; seen through /proc."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        folder.mkdir()
        script = 'mount -t tmpfs -o size="$2" small "$1" && echo mounted && exec sleep infinity'
        self._holder = subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", script, "sh", str(folder), str(size_bytes)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if self._holder.stdout.readline().strip() != "mounted":
            reason = self._holder.stderr.read().strip()
            self.close()
            pytest.skip(f"no mount namespace here: {reason}")
        self.folder = Path(f"/proc/{self._holder.pid}/root{folder}")
        self._filler = self.folder / "filler"
        self._freed = threading.Event()
        self._filling = threading.Thread(target=self._keep_full)

    def fill(self) -> None:
        """To the last byte, and whatever is given up from then on as well, until it is freed."""
        self._fill()
        self._filling.start()

    def _keep_full(self) -> None:
        while not self._freed.wait(FILL_S):
            self._fill()

    def _fill(self) -> None:
        with open(self._filler, "ab", buffering=0) as file:
            for size in (MIB, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def free(self) -> None:
        self._stop()
        self._filler.unlink()

    def _stop(self) -> None:
        self._freed.set()
        if self._filling.is_alive():
            self._filling.join()

    def close(self) -> None:
        self._stop()
        self._holder.kill()
        self._holder.communicate(timeout=PATIENCE_S)
