"""The kept inputs, valid and hostile, are judged every day."""

from __future__ import annotations

import pytest
from fuzzing import CORPUS, kept, read_shown, shown
from hypothesis import example, given
from hypothesis import strategies as st
from targets import TARGETS

MOST_BYTES = 300_000
KEPT = [(name, label) for name in TARGETS for label in kept(name)]


@pytest.mark.parametrize(("name", "label"), KEPT)
def test_a_kept_input_is_refused_or_read_right(name, label):
    """Inputs that once failed are among them."""
    TARGETS[name].check(kept(name)[label])


@pytest.mark.parametrize("name", TARGETS)
def test_whole_inputs_are_judged_too(name):
    """The judge has something to say about what is right."""
    for data in TARGETS[name].seeds.values():
        TARGETS[name].check(data)


def test_the_corpus_is_small_and_has_inputs_for_every_target():
    """Nobody has to fetch it apart from the code."""
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert all(kept(name) for name in TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < MOST_BYTES


@given(st.lists(st.binary(max_size=50) | st.integers(1, 200).map(bytes)).map(b"".join))
@example(b"")
@example(bytes(100))
def test_an_input_is_kept_as_it_is(data):
    """What stands in the corpus is the bytes that failed."""
    assert read_shown(shown(data)) == data
