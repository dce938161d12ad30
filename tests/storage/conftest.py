from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder on tmpfs where there is one: for tests that make thousands of files and sync none."""
    in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="collector-test-", dir=in_memory))
    yield folder
    shutil.rmtree(folder)
