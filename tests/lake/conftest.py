from __future__ import annotations

import sys
from pathlib import Path

import pytest
from store_rig import KEYS, s3_server

sys.path.append(str(Path(__file__).parents[1] / "storage"))


@pytest.fixture(scope="session")
def s3_process():
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(s3_process, monkeypatch):
    """Empty, and its keys are in the environment."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    s3_process.empty()
    return s3_process
