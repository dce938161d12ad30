"""What every child process does first: it never outlives its parent, and its memory never reaches a disk."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import sys
from types import TracebackType
from typing import Final

from collector.errors import ProtocolError
from collector.escaping import defect_in_words

_PR_SET_PDEATHSIG: Final = 1
"""*Source*: prctl(2). It is the creating thread whose end counts: parents spawn from their main one."""

_PR_SET_DUMPABLE: Final = 4


def become_child(parent_pid: int) -> None:
    """SIGTERM when the parent dies, SIGINT and SIGHUP left to it, no core dump with a hit or a token."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, "PR_SET_PDEATHSIG")
    if os.getppid() != parent_pid:  # it died before prctl could tell
        sys.exit(0)
    for name in (signal.SIGINT, signal.SIGHUP):  # the terminal sends them to the whole group
        signal.signal(name, signal.SIG_IGN)
    forbid_core_dumps()
    sys.excepthook = _show_defect
    gc.freeze()  # what is imported is no garbage: collections need not look at it


def _show_defect(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    sys.stderr.write(defect_in_words(error))


def forbid_core_dumps() -> None:
    """Of this process; no other one of the same user can read its memory or its environment either.

    *Source*: core(5): RLIMIT_CORE is not enforced for dumps that are piped to a program, which is what
    most distributions do; a process that is not dumpable is never dumped. An exec undoes it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0, "PR_SET_DUMPABLE")


def _prctl(option: int, value: int, name: str) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise ProtocolError(f"prctl({name}) failed: {os.strerror(ctypes.get_errno())}")
