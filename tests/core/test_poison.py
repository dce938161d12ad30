"""Poison: the record that kills decoders is found within two deaths, an innocent one never blamed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.core.messages import Block, Decode
from collector.core.poison import CRASH_SIGNALS, FORGIVEN_LIMIT, FORGIVEN_WINDOW_S, Blame, Poison
from collector.core.supervision import OUT_OF_MEMORY, Death, Phase, ProgressSnapshot


def death(
    signal: str, block: int, line: int = -1, phase: Phase = Phase.DECODING, exit_code: int = 0
) -> Death:
    how = f"signal {signal}" if signal else f"exit code {exit_code}"
    return Death(how, signal, exit_code, ProgressSnapshot(1, phase, block, line))


def order(seq: int) -> Decode:
    return Decode(Block(seq, 1, 0, 10, 5, 1, 0, 0, 0), 1, 1, 1)


@pytest.mark.parametrize("signal", [*sorted(CRASH_SIGNALS), ""])
def test_a_record_is_found_within_two_deaths(signal):
    """By a crash, or an exception nobody caught: the block is done with care, then the line is known."""
    poison = Poison()
    exit_code = 0 if signal else 1
    assert poison.died(death(signal, 7, exit_code=exit_code), 0.0) == Blame(forgiven=True)
    assert poison.marked(order(7)) == Decode(order(7).block, 1, 1, 1, careful=True)
    assert poison.marked(order(8)) == order(8)
    how = f"signal {signal}" if signal else "exit code 1"
    assert poison.died(death(signal, 7, 3, exit_code=exit_code), 1.0) == Blame(forgiven=True, line=(7, 3))
    assert poison.marked(order(7)).poison == {3: f"the decoder died of it ({how})"}


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.DECODING])
def test_a_death_elsewhere_is_no_records(phase):
    """Starting, waiting, writing: it counts as any death does."""
    poison = Poison()
    for _ in range(5):
        assert poison.died(death("SIGSEGV", 7, 3, phase), 0.0) == Blame()
    assert poison.marked(order(7)) == order(7)


@pytest.mark.parametrize(
    ("signal", "exit_code"), [("SIGKILL", 0), ("SIGTERM", 0), ("", 4), ("", 0), ("", OUT_OF_MEMORY)]
)
def test_deaths_from_outside_always_count(signal, exit_code):
    """They blame a line only when it was the place of two of them: a record may eat all memory."""
    poison = Poison()
    assert poison.died(death(signal, 7, exit_code=exit_code), 0.0) == Blame()
    assert poison.marked(order(7)).careful
    assert poison.died(death(signal, 7, 3, exit_code=exit_code), 1.0) == Blame()
    assert poison.died(death(signal, 7, 4, exit_code=exit_code), 2.0) == Blame()
    assert poison.marked(order(7)).poison == {}
    assert poison.died(death(signal, 7, 3, exit_code=exit_code), 3.0) == Blame(line=(7, 3))


def test_a_death_of_a_careful_block_at_no_line_counts():
    """Nothing more can be found out there, so it must not go on for ever."""
    poison = Poison()
    poison.died(death("SIGSEGV", 7), 0.0)
    assert poison.died(death("SIGSEGV", 7), 1.0) == Blame()


def test_what_a_decoder_caught_itself_is_remembered():
    """A block that runs again gives the same rejects, whether or not it would fail again."""
    poison = Poison()
    poison.found(7, {2: "decoding it failed (MemoryError)"})
    poison.found(7, {4: "decoding it failed (KeyError)"})
    marked = poison.marked(order(7))
    assert marked.careful
    assert set(marked.poison) == {2, 4}


def test_too_many_forgiven_deaths_are_a_broken_decoder():
    """Of all decoders together, within the window; spread over a longer time they are only records."""
    quick, slow = Poison(), Poison()
    found = [quick.died(death("SIGSEGV", seq), float(seq)) for seq in range(1, FORGIVEN_LIMIT + 2)]
    assert [blame.broken for blame in found] == [False] * FORGIVEN_LIMIT + [True]
    for seq in range(1, 200):
        assert not slow.died(death("SIGSEGV", seq), seq * FORGIVEN_WINDOW_S / FORGIVEN_LIMIT + seq).broken


def test_committed_blocks_are_forgotten():
    """Nothing is kept of them, so nothing grows."""
    poison = Poison()
    for seq in (7, 8):
        poison.died(death("SIGKILL", seq), 0.0)
        poison.died(death("SIGKILL", seq, 1), 0.0)
        poison.found(seq, {2: "it"})
    poison.committed(7)
    assert poison.marked(order(7)) == order(7)
    assert poison.marked(order(8)).poison == {2: "it"}
    assert poison == _only(8)


def _only(seq: int) -> Poison:
    poison = Poison()
    poison.died(death("SIGKILL", seq), 0.0)
    poison.died(death("SIGKILL", seq, 1), 0.0)
    poison.found(seq, {2: "it"})
    return poison


@given(st.sets(st.integers(0, 19), max_size=5), st.integers(0, 2**32), st.integers(0, 3))
def test_exactly_the_poisonous_lines_become_rejects(poisonous: set[int], seed: int, kills: int):
    """A decoder that dies of some lines, and is killed now and then elsewhere, ends with just those.

    One death for the block, one for each line; a kill never makes a reject of a line it hits once.
    """
    chance = random.Random(seed)
    poison, deaths, kills_at = Poison(), 0, set()
    for _ in range(100):
        todo = poison.marked(order(7))
        died_at = next((line for line in range(20) if line in poisonous - set(todo.poison)), None)
        stops = range(20 if died_at is None else died_at)
        free = [line for line in stops if line not in kills_at and line not in todo.poison]
        if kills and free and chance.random() < 0.3:
            kills -= 1
            line = chance.choice(free) if todo.careful else -1
            kills_at.add(line)
            blame = poison.died(death("SIGKILL", 7, line), 0.0)
            assert blame == Blame()
            continue
        if died_at is None:
            break
        blame = poison.died(death("SIGSEGV", 7, died_at if todo.careful else -1), 0.0)
        assert blame.forgiven
        deaths += 1
    assert set(poison.marked(order(7)).poison) == poisonous
    assert deaths <= len(poisonous) + 1
