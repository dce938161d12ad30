from __future__ import annotations

import pytest

from collector import escaping


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests(monkeypatch):
    """What one test conceals must not be masked in the words of the next."""
    monkeypatch.setattr(escaping, "_secrets", set())
