"""``reset VALUE``: asks the running, or else the next, collector to send ``reset`` with its next request.

The request is one small durable file in the state folder. Whoever sends it takes it away first, so it is
sent at most once, whatever dies in between.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from collector.errors import ConfigurationError
from collector.settings import Settings
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder

_EFFECTS: Final = {
    "smallest": "the service sends again from the oldest hit it still holds; resends are dropped here",
    "earliest": "the service sends again from the oldest hit it still holds; resends are dropped here",
    "largest": "the service goes on from now and THROWS AWAY what it held back for us: those hits are lost",
    "latest": "the service goes on from now and THROWS AWAY what it held back for us: those hits are lost",
}


def run(settings: Settings, value: str) -> int:
    """Store the request. *Blocks* for the sync. *Raises* ``ConfigurationError``, ``StorageError``."""
    state = StateFolder(settings.state.folder)
    if not os.path.isdir(state.root):
        raise ConfigurationError(
            f"{state.root} is no state folder: nothing has collected here yet; give the --output and "
            "--stream (or --state) of the collector that shall send the reset"
        )
    DISK.write_file_durably(state.reset_request, f"{value}\n".encode("ascii"))
    sys.stdout.write(
        f"reset={value} goes with the next request, once: {_EFFECTS[value]}.\n"
        "It takes effect only while every client of the stream is closed; a connection that is open now is "
        "not cut for it: restart the collector to send it sooner.\n"
    )
    return 0
