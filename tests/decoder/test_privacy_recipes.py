"""The recipes of docs/privacy.md give the hashes that are in parts."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from collector.core.privacy import Privacy

PAGE = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text(encoding="utf-8")
KEYS = ["0123456789abcdef" * 4, "short-of-64-0123456789abcdef0123456789"]
VALUES = ["Mozilla/5.0 (X11)", "Mözilla \U0001f600", "'", "x" * 1000]


def block(language: str, begins: str) -> str:
    (found,) = re.findall(rf"```{language}\n({re.escape(begins)}.*?)```", PAGE, re.DOTALL)
    return found


@pytest.mark.parametrize("key", KEYS)
def test_the_recipes_compute_what_the_decoders_do(key):
    """In Python and in DuckDB."""
    names: dict = {}
    exec(block("python", "import hashlib"), names)
    with duckdb.connect() as connection:
        connection.execute(block("sql", "CREATE MACRO"))
        for value in VALUES:
            expected = Privacy((), ("userAgent",), key.encode()).digest(value.encode())
            assert names["hidden"](key, value) == expected
            assert connection.execute("SELECT hidden(?, ?)", [key, value]).fetchone() == (expected,)
        assert connection.execute("SELECT hidden(?, ''), hidden(?, NULL)", [key, key]).fetchone() == (
            "",
            None,
        )
    assert names["hidden"](key, "") == ""
