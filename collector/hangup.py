"""SIGHUP from the first line of a run on: a wish for new settings, or a terminal that is gone.

Its default ends a process at once, so it is caught before anything else is done. Runs in the process a person
or a service manager starts. Invariant: a signal that comes too early is acted on as soon as somebody can.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self


class Hangup:
    """Made by ``catch`` alone: there is one signal."""

    def __init__(self, *, has_terminal: bool) -> None:
        self._has_terminal = has_terminal
        self._came = False

    @classmethod
    def catch(cls) -> Self:
        """From now on. Who started it with ``nohup`` wants no end with the terminal."""
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        hangup = cls(has_terminal=not ignored and _has_terminal())
        signal.signal(signal.SIGHUP, lambda *_: hangup._remember())
        return hangup

    def _remember(self) -> None:
        self._came = True

    @property
    def lost_terminal(self) -> bool:
        """The terminal it was started from is no more, which is why the signal came."""
        return self._has_terminal and not _has_terminal()

    @contextmanager
    def heard_by(self, act: Callable[[], object]) -> Iterator[None]:
        """``act`` is called on the running loop for each one; afterwards it is ignored: this is the end."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, act)
        if self._came:
            loop.call_soon(act)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # removing brings the default back
            loop.remove_signal_handler(signal.SIGHUP)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
