"""Programs of others that judge the files here."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def run_tool(name: str, *arguments: object, package: str) -> subprocess.CompletedProcess[str]:
    """Skips the test where it is missing, and fails in CI. Both outputs are in ``stdout``."""
    if shutil.which(name) is None:
        reason = f"{name} is missing (on Debian and Ubuntu: apt-get install {package})"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    command = [name, *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
