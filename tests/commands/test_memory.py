"""What a process that lives for months does with memory that it no longer needs."""

from __future__ import annotations

import subprocess
import sys

ARRAYS = 64
FILLED_TWICE = f"""
from collector.commands.run import {{}}

def anonymous_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

before = anonymous_bytes()
kept = []
for _ in range(2):
    arrays = []
    for _ in range({ARRAYS}):
        arrays.append(bytearray(b"x") * 1_000_000)
        kept.append(bytearray(b"x") * 100_000)
    del arrays
print(anonymous_bytes() - before)
"""


def kept_bytes(first: str) -> int:
    """After large arrays with small ones between them were made and dropped, twice."""
    command = [sys.executable, "-c", FILLED_TWICE.format(first)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_memory_of_large_arrays_goes_back_to_the_system():
    least = kept_bytes("give_memory_back; give_memory_back()")
    assert kept_bytes("give_memory_back") - least > ARRAYS * 500_000
