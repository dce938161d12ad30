"""A wall clock that jumps: every Python process with this folder on its PYTHONPATH reads it from a file.

LIVESTREAM_TEST_CLOCK names a file with the seconds by which the clock is wrong. Only the wall clock: what
measures time that passes is left alone.
"""

from __future__ import annotations

import os
import time

_true_ns = time.time_ns
_path = os.environ["LIVESTREAM_TEST_CLOCK"]


def _wrong_ns() -> int:
    with open(_path) as file:
        return _true_ns() + int(file.read() or "0") * 1_000_000_000


time.time_ns = _wrong_ns
time.time = lambda: _wrong_ns() / 1e9
