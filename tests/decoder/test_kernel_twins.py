"""The kernel gives what the plain path gives: rows to the bit, ``extra``, rejects, ids, lines."""

from __future__ import annotations

import random

import pytest
from decode_rig import judge, need_kernel
from hypothesis import given, settings
from hypothesis import strategies as st
from test_decode_property import ANY, LINES, written
from twin_rig import BENDS, agree, bent, sample_lines, simulated_lines

BLOCK_LINES = 250


@pytest.fixture(scope="module", autouse=True)
def _kernel():
    need_kernel()


def test_the_sample_is_decoded_alike():
    """And as the reference decodes it."""
    lines = sample_lines()
    judge(lines, agree(lines))


def test_simulated_hits_of_all_shapes_are_decoded_alike():
    """As they are streamed, in blocks of ordinary size, and all of a block with its neighbours."""
    lines = simulated_lines(4000)
    for first in range(0, len(lines), 1000):
        assert not agree(lines[first : first + 1000]).rejects


def test_bent_hits_are_decoded_alike(request):
    """Another sample of ways to bend a hit every day."""
    _bend(random.Random(request.config.getoption("--fault-seed")), 6000)


@pytest.mark.matrix
@pytest.mark.timeout(3600)
def test_many_bent_hits_are_decoded_alike(request):
    """The same for longer."""
    _bend(random.Random(request.config.getoption("--fault-seed") + 1), 300_000)


def _bend(chance, count):
    pool = [*sample_lines(), *simulated_lines(300)]
    rejects = 0
    for _ in range(0, count, BLOCK_LINES):
        lines = [bent(chance, chance.choice(pool)) for _ in range(BLOCK_LINES)]
        rejects += len(agree(lines).rejects)
    assert count / 10 < rejects < count * 9 / 10, "bent too little or too much"


@pytest.mark.matrix
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("bend", [*dict.fromkeys(BENDS)], ids=lambda bend: bend.__name__)
def test_a_hit_that_is_bent_anywhere_is_decoded_alike(bend):
    """Every position of a few hits."""
    chance = random.Random(1)
    for hit in (sample_lines()[0], *simulated_lines(2)):
        lines = [bend(chance, hit, at).replace(b"\n", b" ") for at in range(len(hit))]
        for first in range(0, len(lines), BLOCK_LINES):
            agree(lines[first : first + BLOCK_LINES])


@given(LINES)
@settings(max_examples=150, deadline=None)
def test_records_of_any_shape_are_decoded_alike(lines):
    """In the documented places, with something else there now and then."""
    agree(lines)


@given(
    st.lists(st.builds(lambda value: written(value, "", escaped=False).encode(), ANY), max_size=4),
    st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=4),
    st.randoms(use_true_random=False),
)
@settings(max_examples=150, deadline=None)
def test_json_of_any_shape_and_no_json_are_decoded_alike(values, junk, chance):
    """What is no object is a reject of both, for the same reason."""
    lines = [*values, *junk]
    chance.shuffle(lines)
    agree(lines)
