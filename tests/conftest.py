from __future__ import annotations

import os
import random
import shutil
import tempfile

import pytest

from collector import escaping


def pytest_addoption(parser):
    group = parser.getgroup("collector")
    group.addoption("--all", action="store_true", help="also the tests marked matrix, which take an hour")
    group.addoption("--fault-seed", type=int, help="of the sample of faults that everyday runs draw")


def pytest_configure(config):
    if config.getoption("--fault-seed") is None:
        config.option.fault_seed = random.SystemRandom().randrange(2**32)
    keep_bytecode(config)


def keep_bytecode(config):
    """Hundreds of processes are started, and a part of each start is compiling what was compiled before.

    Where the environment forbids bytecode beside the source they share a folder that goes with the session.
    """
    if not os.environ.get("PYTHONDONTWRITEBYTECODE"):
        return
    folder = tempfile.mkdtemp(prefix="collector-bytecode-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    del os.environ["PYTHONDONTWRITEBYTECODE"]
    os.environ["PYTHONPYCACHEPREFIX"] = folder


def pytest_report_header(config):
    return f"fault seed: {config.getoption('--fault-seed')}"


def pytest_collection_modifyitems(config, items):
    """Without --all the whole matrix is left out."""
    if config.getoption("--all"):
        return
    matrix = [item for item in items if item.get_closest_marker("matrix")]
    config.hook.pytest_deselected(items=matrix)
    items[:] = [item for item in items if item not in matrix]


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests(monkeypatch):
    """What one test conceals must not be masked in the words of the next."""
    monkeypatch.setattr(escaping, "_secrets", set())
    monkeypatch.setattr(escaping, "_passing", type(escaping._passing)(maxlen=escaping._passing.maxlen))
