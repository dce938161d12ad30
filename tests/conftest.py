from __future__ import annotations

import random

import pytest

from collector import escaping


def pytest_addoption(parser):
    group = parser.getgroup("collector")
    group.addoption("--all", action="store_true", help="also the tests marked matrix, which take an hour")
    group.addoption("--fault-seed", type=int, help="of the sample of faults that everyday runs draw")


def pytest_configure(config):
    if config.getoption("--fault-seed") is None:
        config.option.fault_seed = random.SystemRandom().randrange(2**32)


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
