"""The commit log as somebody reads it who does not own it: each entry once, in order, whatever rotates."""

from __future__ import annotations

import random

import pytest

from collector.core.entries import Made, Note
from collector.core.ledger import LogState
from collector.errors import DamagedError
from collector.storage.commitlog import CommitLog, packed_checkpoint
from collector.storage.follow import LogFollower
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder


class Writer:
    def __init__(self, folder, rotate_bytes=2000):
        self.state = StateFolder(folder)
        folder.mkdir(exist_ok=True)
        self.log = CommitLog.open(DISK, self.state.commit_log, rotate_bytes=rotate_bytes)
        self.ledger = LogState()
        self.entries = []

    def append(self, *entries):
        last = self.log.append_all(entries)
        for number, entry in enumerate(entries, last - len(entries) + 1):
            self.ledger.fold(number, entry)
            self.entries.append((number, entry))

    def rotate_if_due(self):
        if self.log.rotation_due:
            last = self.entries[-1][0]
            assert self.log.rotate(last, packed_checkpoint(last, self.ledger.checkpoint()))


@pytest.fixture
def writer(tmp_path):
    made = Writer(tmp_path / "state")
    made.append(Made("00112233445566ff", "s", "s", 1))
    yield made
    made.log.close()


@pytest.mark.parametrize("seed", range(5))
def test_each_entry_comes_once_in_order(writer, seed):
    """However many appends and rotations lie between two looks, and if a look is broken off."""
    chance = random.Random(seed)
    follower, seen = LogFollower(DISK, writer.state), []
    for _ in range(120):
        writer.append(*[Note("k", "x" * chance.randrange(100)) for _ in range(chance.randrange(1, 4))])
        if chance.random() < 0.7:
            writer.rotate_if_due()
        if chance.random() < 0.3:
            for number, entry in follower.read():
                seen.append((number, entry))
                if chance.random() < 0.05:
                    break
    seen += list(follower.read())
    assert seen == writer.entries
    assert list(follower.read()) == []
    assert len(list(writer.state.archive.iterdir())) > 2


@pytest.mark.parametrize("begin", [1, 2, 40, 80])
def test_it_begins_anywhere(writer, begin):
    """Also in the archive; what is before that is not given."""
    for _ in range(80):
        writer.append(Note("k", "x" * 80))
        writer.rotate_if_due()
    follower = LogFollower(DISK, writer.state, begin=begin)
    assert list(follower.read()) == writer.entries[begin - 1 :]


def test_an_append_that_is_being_written_waits(writer):
    """A frame that is not whole yet is not given, nor taken for damage; once it is whole it comes."""
    follower = LogFollower(DISK, writer.state)
    list(follower.read())
    writer.append(Note("k", "whole soon"))
    whole = writer.state.commit_log.read_bytes()
    writer.state.commit_log.write_bytes(whole[:-5])
    assert list(follower.read()) == []
    writer.state.commit_log.write_bytes(whole)
    assert list(follower.read()) == writer.entries[-1:]


def test_what_is_missing_is_said(writer):
    """An archive that is gone is no reason to go on behind it."""
    for _ in range(80):
        writer.append(Note("k", "x" * 80))
        writer.rotate_if_due()
    sorted(writer.state.archive.iterdir())[1].unlink()
    with pytest.raises(DamagedError, match="are missing"):
        list(LogFollower(DISK, writer.state).read())


def test_without_a_log_there_is_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(LogFollower(DISK, StateFolder(tmp_path)).read())
