"""What every child does first."""

from __future__ import annotations

import subprocess
import sys


def test_nothing_of_a_child_is_ever_dumped():
    """Not as a file, and not through a program: for the latter the limit on core files does not count."""
    code = (
        "import ctypes, os, resource\nfrom collector.ipc.child import become_child\n"
        "become_child(os.getppid())\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "(0, 0) 0\n", found.stderr
