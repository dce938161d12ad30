"""Soaks that found something once, short: the same faults in the same order, as far as time allows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT

SEEDS = (2,)


@pytest.mark.matrix
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", SEEDS)
def test_soak(seed, tmp_path):
    """Half a minute of random faults: every invariant holds."""
    command = [
        sys.executable,
        "tests/system/soak.py",
        "--minutes",
        "0.5",
        "--seed",
        str(seed),
        "--rate",
        "500",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(  # noqa: PLW1510 - judged below
        [*command, "--folder", str(tmp_path)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert list(Path(tmp_path).rglob("*.parquet")) == []
