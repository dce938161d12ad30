"""docs/guarantees.md names the test behind each sentence: each of them must exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "guarantees.md"
NAMED = re.findall(r"`([a-z_/]+\.py)::([a-z_0-9]+)`", PAGE.read_text())


def test_the_page_names_tests():
    """The pattern finds them, on many lines."""
    assert len(NAMED) > 50


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_exists(file, name):
    """What the page points to is there."""
    tree = ast.parse((TESTS / file).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
