"""The kernel against the plain path; ``kernel_engine`` has it alone, under libFuzzer."""

from __future__ import annotations

import sys
from pathlib import Path

from fuzzing import Target, bent
from targets_stream import LINES

sys.path.append(str(Path(__file__).parents[1] / "decoder"))
from decode_rig import need_kernel
from twin_rig import agree


def judge_kernel(data: bytes) -> None:
    """The judge is the plain path, which ``decode`` holds against the reference."""
    need_kernel()
    agree([line for line in data.split(b"\n") if line])


TARGETS = [Target("kernel", judge_kernel, LINES, bent(list(LINES.values()), 8), everyday=150)]
