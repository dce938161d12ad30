"""Packages that are imported when they are needed first: a start does not pay for what it may never use.

Used in the coordinator, from any thread. The invariant: one such import at a time. Python lets two threads
that are at the same package of many modules each go on with half of it.
"""

from __future__ import annotations

import importlib
import threading
from typing import Final

_ONE_AT_A_TIME: Final = threading.Lock()


def import_late(*names: str) -> None:
    """*Blocks* for as long as it takes, so not on an event loop: in a thread of its own."""
    with _ONE_AT_A_TIME:
        for name in names:
            importlib.import_module(name)
