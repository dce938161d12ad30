"""Prometheus' own tool, and what an expression of its language names."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tools import run_tool

from collector.metrics import METRICS

OF_PROMETHEUS = {"up"}
"""Metrics that a scrape itself makes."""


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_tool("promtool", *arguments, package="prometheus")


def metrics_of(expression: str) -> Iterator[str]:
    """The series it asks for: every name but those of functions, labels, keywords and units."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"|\b(?:by|without|on|ignoring) \([^)]*\)", "", expression)
    for name in re.findall(r"(?<![\w.])[a-z_][a-z0-9_:]*\b(?! *\()", bare):
        if name not in {"and", "or", "unless", "bool", "by", "without", "offset"}:
            yield name


def uncatalogued(expression: str) -> set[str]:
    return set(metrics_of(expression)) - set(METRICS) - OF_PROMETHEUS


def headings(path: Path) -> set[str]:
    """The anchors that a Markdown page has, as they are linked to."""
    lines = [line.lstrip("#").strip() for line in path.read_text().splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}
