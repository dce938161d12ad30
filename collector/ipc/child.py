"""What every child process does first: it never outlives its parent, and leaves no core dump."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from typing import Final

from collector.errors import ProtocolError

_PR_SET_PDEATHSIG: Final = 1
"""*Source*: prctl(2). It is the creating thread whose end counts: parents spawn from their main one."""


def become_child(parent_pid: int) -> None:
    """SIGTERM when the parent dies, SIGINT and SIGHUP left to it, no core dump with a hit or a token."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise ProtocolError(f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent_pid:  # it died before prctl could tell
        sys.exit(0)
    for name in (signal.SIGINT, signal.SIGHUP):  # the terminal sends them to the whole group
        signal.signal(name, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
