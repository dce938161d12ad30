"""``compact --engine spark``: the same expression elsewhere, the same files to the byte."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from compact_rig import make_lake

ROOT = Path(__file__).parents[2]
LOCK = "requirements-spark.lock"
PATIENCE_S = 600


def without_spark(reason: str) -> None:
    """What is missing is a skip locally and a failure in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}: CI must have it")
    pytest.skip(reason)


def spark_packages() -> Path:
    """Of an environment of its own: pyspark is half a gigabyte."""
    if shutil.which("java") is None:
        without_spark("java is not installed (on Debian: apt-get install default-jre-headless)")
    if not list((ROOT / ".venv-spark").glob("lib/python*/site-packages/pyspark")):
        if not (ROOT / LOCK).exists():
            without_spark(f"there is no {LOCK}")
        subprocess.run([ROOT / "scripts" / "setup", ".venv-spark", LOCK], cwd=ROOT, check=True)
    (found,) = (ROOT / ".venv-spark").glob("lib/python*/site-packages")
    return found


@pytest.mark.matrix
@pytest.mark.timeout(PATIENCE_S + 300)
def test_spark_gives_the_same_files_as_duckdb(tmp_path):
    """Local mode; resends, hours and ids as everywhere."""
    packages = spark_packages()
    lake = make_lake(tmp_path / "duckdb")
    other = lake.copy_to(tmp_path / "spark")
    lake.compact()
    done = subprocess.run(
        [sys.executable, "-m", "collector", "compact", "--engine", "spark", "--output", str(other.output)],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": str(packages), "LIVESTREAM_STREAM__NAME": "shop", "SPARK_LOCAL_IP": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 hours compacted" in done.stdout
    assert {path.name: path.read_bytes() for path in other.files()} == {
        path.name: path.read_bytes() for path in lake.files()
    }
    other.assert_green()
