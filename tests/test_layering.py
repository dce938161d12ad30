"""The package's shape: who may import whom, what the core may touch, how long a module may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import collector

PACKAGE = Path(collector.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

RANKS = {
    "__init__": 0,
    "errors": 0,
    "allocator": 0,
    "escaping": 0,
    "hit_fields": 0,
    "late": 0,
    "privacy_fields": 1,
    "settings": 1,
    "settings_kinds": 1,
    "settings_lake": 1,
    "settings_table": 1,
    "settings_values": 1,
    "settings_rules": 1,
    "credentials": 1,
    "events": 0,
    "explanations": 2,
    "telemetry": 1,
    "trust": 1,
    "metrics": 2,
    "proxy": 2,
    "given": 2,
    "hangup": 0,
    "settings_text": 2,
    "core": 1,
    "storage": 2,
    "ipc": 2,
    "reader": 3,
    "decoder": 3,
    "coordinator": 3,
    "simulator": 3,
    "lake": 4,
    "commands": 5,
    "reference": 5,
    "cli": 6,
    "__main__": 7,
}
"""A module imports what ranks below it and its own package, nothing beside or above it."""

ONE_GROUP = {
    "privacy_fields",
    "settings",
    "settings_kinds",
    "settings_lake",
    "settings_table",
    "settings_values",
    "settings_rules",
}
PROCESSES = {"reader", "decoder", "coordinator", "simulator"}

OUTSIDE_WORLD = {
    "asyncio", "mmap", "multiprocessing", "os", "pathlib", "random", "secrets", "select", "selectors",
    "shutil", "signal", "socket", "ssl", "subprocess", "tempfile", "threading", "time", "uuid",
    "aiohttp", "pyarrow", "pycurl", "structlog", "uvloop",
}  # fmt: skip


def _imported(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            if node.module == "collector":
                yield from ((node.lineno, f"collector.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module or ""


def _unit(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _target(module: str) -> str:
    unit = module.split(".")[1]
    return "__init__" if unit.startswith("__") and unit != "__main__" else unit


def _ours(path: Path) -> Iterator[tuple[int, str]]:
    for line, module in _imported(path):
        if module.startswith("collector."):
            yield line, _target(module)


def _name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_follow_the_layers(path):
    """errors <- settings, telemetry; errors <- core <- storage, ipc <- processes <- commands <- cli."""
    unit = _unit(path)
    assert unit in RANKS, "give the new module its place in RANKS"
    for line, target in _ours(path):
        same = unit == target or {unit, target} <= ONE_GROUP
        assert same or RANKS[target] < RANKS[unit], f"{path}:{line}: {unit} imports {target}"


@pytest.mark.parametrize("process", sorted(PROCESSES))
def test_processes_never_import_each_other(process):
    """They meet in messages and in files only."""
    for path in (PACKAGE / process).rglob("*.py"):
        targets = {target for _, target in _ours(path)}
        assert not targets & (PROCESSES - {process}), path


@pytest.mark.parametrize("path", [path for path in MODULES if _unit(path) == "core"], ids=_name)
def test_the_core_decides_and_touches_nothing(path):
    """No sockets, files, processes, clocks or chance: ``now`` and random numbers are arguments."""
    for line, module in _imported(path):
        assert module.split(".")[0] not in OUTSIDE_WORLD, f"{path}:{line}"
    text = path.read_text(encoding="utf-8")
    assert not any(clock in text for clock in ("datetime.now(", "utcnow(", "date.today(", " open("))


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_nothing_is_shared_through_multiprocessing(path):
    """A killed holder of a shared lock would hang the rest."""
    assert not any(module.split(".")[0] == "multiprocessing" for _, module in _imported(path))


def test_one_module_speaks_curl():
    """Transport is one seam."""
    speakers = {_name(path) for path in MODULES if any(module == "pycurl" for _, module in _imported(path))}
    assert speakers <= {"reader/transport.py"}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_modules_stay_short(path):
    """At most 400 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_modules_say_what_they_are_for(path):
    """Every module has a docstring."""
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
