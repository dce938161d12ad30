"""Any bytes in: the documented errors or a right answer, never another exception, never a hang."""

from __future__ import annotations

import pytest
from targets import TARGETS

ALL_FACTOR = 40


@pytest.mark.parametrize("name", TARGETS)
def test_bent_inputs_are_refused_or_read_right(name):
    """A few examples a day."""
    TARGETS[name].examples(TARGETS[name].everyday)


@pytest.mark.matrix
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", TARGETS)
def test_many_bent_inputs_are_refused_or_read_right(name):
    """The same with many more."""
    TARGETS[name].examples(TARGETS[name].everyday * ALL_FACTOR)
