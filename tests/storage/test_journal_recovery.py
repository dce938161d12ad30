from __future__ import annotations

import contextlib
import os
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from faulty_disk import Crashed, Fate, FaultyDisk, LossyDisk
from hypothesis import given, settings
from hypothesis import strategies as st
from isal.isal_zlib import crc32

from collector.core.entries import Lost
from collector.core.messages import Block
from collector.errors import DamagedError, NewerVersionError, StorageError
from collector.storage.fs import DISK, Disk
from collector.storage.journal import JournalReader, JournalWriter, Recovered, free_segment, recover
from collector.storage.journal_recovery import TORN_KEPT, Accept
from collector.storage.journal_survey import UNKNOWN_BLOCKS, Loss
from collector.storage.segments import (
    BLOCK_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    free_name,
    segment_name,
    space_of,
)

SMALL = SEGMENT_HEADER_BYTES + 3 * space_of(24)


class Journal:
    """A folder of small segments and what was written to it."""

    def __init__(self, root: Path, *, segment_bytes: int = SMALL, disk: Disk = DISK) -> None:
        self.folder = root / "journal"
        self.quarantine = root / "quarantine"
        self.folder.mkdir(parents=True)
        self.quarantine.mkdir()
        self.disk = disk
        self.segment_bytes = segment_bytes
        self.written: dict[int, bytes] = {}
        self.blocks: list[Block] = []
        self.synced = 0
        self.start(1, 1)

    def start(self, next_seq: int, next_segment: int) -> None:
        self.next_segment = next_segment
        self.free: list[int] = []
        self.writer = JournalWriter(
            self.disk, self.folder, next_seq=next_seq, segment_bytes=self.segment_bytes
        )

    def append(self, payload: bytes = b"x" * 24) -> Block:
        while (block := self._try(payload)) is None:
            recycled = free_name(self.free.pop(0)) if self.free else ""
            self.writer.add_segment(self.next_segment, recycled)
            self.next_segment += 1
        self.written[block.seq] = payload
        self.blocks.append(block)
        return block

    def _try(self, payload: bytes) -> Block | None:
        return self.writer.append(payload, records=1, connection=1, flags=0, collected_at_us=1, held_us=1)

    def sync(self) -> int:
        self.synced = self.writer.sync()
        return self.synced

    def recover(self, after_seq: int = 0, known_durable_seq: int = 0, disk: Disk = DISK) -> Recovered:
        return recover(
            disk, self.folder, self.quarantine, after_seq=after_seq, known_durable_seq=known_durable_seq
        )

    def segment(self, number: int) -> Path:
        return self.folder / segment_name(number)

    def contents(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}


def written(root: Path, count: int, *, sync_each: bool = True) -> Journal:
    journal = Journal(root)
    for n in range(1, count + 1):
        journal.append(bytes([n]) * 24)
        if sync_each:
            journal.sync()
    journal.sync()
    journal.writer.close()
    return journal


def flip(path: Path, at: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= bit
    path.write_bytes(data)


# ---------------------------------------------------------------- nothing wrong


def test_an_empty_folder_goes_on_after_what_is_committed(tmp_path: Path) -> None:
    """Every segment was freed and deleted: numbering goes on."""
    journal = Journal(tmp_path)
    found = journal.recover(after_seq=41)
    assert (found.blocks, found.next_seq, found.next_segment, found.cut) == ([], 42, 1, None)


def test_only_blocks_after_the_committed_ones_are_given(tmp_path: Path) -> None:
    """And per segment the last block, whether committed or not."""
    journal = written(tmp_path, 7)
    found = journal.recover(after_seq=4)
    assert [block.seq for block in found.blocks] == [5, 6, 7]
    assert found.last_block == {1: 3, 2: 6, 3: 7}
    assert (found.next_seq, found.next_segment, found.cut) == (8, 4, None)


def test_a_spare_segment_without_a_block_is_deleted(tmp_path: Path) -> None:
    """The next reader is granted another number."""
    journal = Journal(tmp_path)
    journal.append()
    journal.writer.add_segment(2)
    journal.sync()
    journal.writer.close()
    found = journal.recover()
    assert found.last_block == {1: 1}
    assert found.next_segment == 3
    assert os.listdir(journal.folder) == [segment_name(1)]


def test_committed_segments_may_be_missing_in_any_order(tmp_path: Path) -> None:
    """Freed files can go in any order when the host dies."""
    for missing in ([1], [2], [1, 2], []):
        journal = written(tmp_path / repr(missing), 10)
        for number in missing:
            journal.segment(number).unlink()
        assert [block.seq for block in journal.recover(after_seq=7).blocks] == [8, 9, 10]


def test_blocks_that_were_written_but_not_synced_are_made_durable(tmp_path: Path) -> None:
    """A killed reader's last blocks are whole in memory: they are synced before they are given."""
    journal = Journal(tmp_path)
    journal.append()
    journal.sync()
    journal.append()
    journal.writer.close()
    disk = FaultyDisk()
    assert len(journal.recover(known_durable_seq=1, disk=disk).blocks) == 2
    assert "fdatasync" in disk.calls
    assert "fdatasync" not in _calls(journal, known_durable_seq=2)


def _calls(journal: Journal, known_durable_seq: int) -> list[str]:
    disk = FaultyDisk()
    journal.recover(known_durable_seq=known_durable_seq, disk=disk)
    return disk.calls


def test_a_segment_freed_while_the_journal_is_read_is_left_out(tmp_path: Path) -> None:
    """A commit goes on while a dead reader's tail is recovered."""

    class Freeing(Disk):
        def size(self, path: object) -> int:
            if journal.segment(1).exists():
                free_segment(DISK, journal.folder, 1)
            return super().size(path)  # type: ignore[arg-type]

    journal = written(tmp_path, 5)
    found = journal.recover(after_seq=4, disk=Freeing())
    assert [block.seq for block in found.blocks] == [5]
    assert found.last_block == {2: 5}


# ---------------------------------------------------------------- a torn tail


def test_a_tail_cut_at_any_byte_is_put_aside(tmp_path: Path) -> None:
    """The longest whole prefix stays; the rest is in quarantine, and the next run finds nothing to cut."""
    journal = written(tmp_path, 2)
    last = journal.blocks[-1]
    start, end = last.offset - BLOCK_HEADER_BYTES, last.offset + last.length
    whole = journal.segment(1).read_bytes()
    for size in range(start + 1, end):
        journal.segment(1).write_bytes(whole[:size])
        found = journal.recover()
        assert [block.seq for block in found.blocks] == [1]
        assert found.cut is not None
        assert (found.cut.segment, found.cut.offset, found.cut.seq) == (1, start, 2)
        (torn,) = journal.quarantine.iterdir()
        assert torn.read_bytes() == whole[start:size].rstrip(b"\0")
        assert journal.segment(1).stat().st_size == start
        assert journal.recover().cut is None
        torn.unlink()


def test_torn_blocks_in_later_segments_are_cut_too(tmp_path: Path) -> None:
    """Blocks after a hole were never reported: they are put aside with it."""
    journal = Journal(tmp_path)
    for _ in range(8):
        journal.append()
    journal.writer.close()
    flip(journal.segment(1), journal.blocks[1].offset)
    found = journal.recover()
    assert [block.seq for block in found.blocks] == [1]
    assert found.cut is not None
    assert "block 2 in segment 1" in str(found.cut)
    assert len(list(journal.quarantine.iterdir())) == 3
    assert os.listdir(journal.folder) == [segment_name(1)]
    assert journal.recover().blocks == found.blocks


def test_a_cut_segment_is_never_extended(tmp_path: Path) -> None:
    """The next writer goes on in a new segment, and the chain leads there."""
    journal = written(tmp_path, 2)
    flip(journal.segment(1), journal.blocks[1].offset)
    found = journal.recover()
    journal.start(found.next_seq, found.next_segment)
    block = journal.append(b"again")
    journal.sync()
    journal.writer.close()
    assert (block.seq, block.segment) == (2, 2)
    again = journal.recover()
    assert [found.seq for found in again.blocks] == [1, 2]
    assert bytes(JournalReader(journal.folder).payload(again.blocks[1])) == b"again"


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("bit", [1, 128])
def test_a_bit_flipped_in_a_block_that_a_later_one_proves_durable(tmp_path: Path, bit: int) -> None:
    """At every byte, the length field too: the start is refused and nothing is changed."""
    journal = written(tmp_path, 5)
    for victim in journal.blocks[:3]:
        path = journal.segment(victim.segment)
        for at in range(victim.offset - BLOCK_HEADER_BYTES, victim.offset + victim.length):
            flip(path, at, bit)
            before = journal.contents()
            with pytest.raises(
                DamagedError, match=rf"segment: block {victim.seq}, which was durable"
            ) as caught:
                journal.recover()
            assert f"bytes {victim.offset - BLOCK_HEADER_BYTES} to " in str(caught.value)
            assert journal.contents() == before
            flip(path, at, bit)
    assert os.listdir(journal.quarantine) == []


def test_a_bit_flipped_in_the_last_block(tmp_path: Path) -> None:
    """Nothing in the journal proves that it was durable, so it is damage only if the caller knows."""
    journal = written(tmp_path, 2)
    last = journal.blocks[-1]
    for at in range(last.offset - BLOCK_HEADER_BYTES, last.offset + last.length):
        flip(journal.segment(1), at)
        with pytest.raises(DamagedError):
            journal.recover(known_durable_seq=2)
        flip(journal.segment(1), at)
    flip(journal.segment(1), last.offset)
    assert [block.seq for block in journal.recover().blocks] == [1]


def test_a_bit_flipped_in_a_committed_payload_does_not_matter(tmp_path: Path) -> None:
    """Its records are in committed parts; what follows is still found."""
    journal = written(tmp_path, 5)
    flip(journal.segment(1), journal.blocks[1].offset)
    assert [block.seq for block in journal.recover(after_seq=2).blocks] == [3, 4, 5]


def test_a_missing_segment_in_the_middle_is_damage(tmp_path: Path) -> None:
    """The blocks after it say that it was durable."""
    journal = written(tmp_path, 9)
    journal.segment(2).unlink()
    with pytest.raises(DamagedError, match="blocks 4 to 6, which were durable, are damaged or missing"):
        journal.recover()


def test_missing_segments_are_damage_when_the_caller_knows(tmp_path: Path) -> None:
    """Also when none is left at all."""
    journal = written(tmp_path, 3)
    journal.segment(1).unlink()
    with pytest.raises(DamagedError, match="no segment is left"):
        journal.recover(known_durable_seq=3)


def test_swapped_segments_are_damage(tmp_path: Path) -> None:
    """A header knows its number."""
    journal = written(tmp_path, 6)
    journal.segment(1).rename(tmp_path / "one")
    journal.segment(2).rename(journal.segment(1))
    (tmp_path / "one").rename(journal.segment(2))
    with pytest.raises(DamagedError, match="under another's name"):
        journal.recover()


def test_a_symbolic_link_is_no_segment(tmp_path: Path) -> None:
    """Even one to the real file."""
    journal = written(tmp_path, 2)
    journal.segment(1).rename(tmp_path / "elsewhere")
    journal.segment(1).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="not a regular file"):
        journal.recover()


def test_a_segment_header_that_does_not_check_out_is_damage(tmp_path: Path) -> None:
    """It was durable before the file had its name, so no crash explains it."""
    journal = written(tmp_path, 1)
    whole = journal.segment(1).read_bytes()
    for at in range(52):
        flip(journal.segment(1), at)
        with pytest.raises((DamagedError, NewerVersionError)):
            journal.recover()
        journal.segment(1).write_bytes(whole)
    os.truncate(journal.segment(1), 100)
    with pytest.raises(DamagedError, match="it was cut"):
        journal.recover()


def test_a_newer_segment_is_refused_before_anything_is_cut(tmp_path: Path) -> None:
    """Also when an older segment has a torn tail."""
    journal = written(tmp_path, 4)
    flip(journal.segment(1), journal.blocks[2].offset)
    fields = struct.pack("<8sHxxxxxxQ16sQ", b"LSsegmnt", 2, 2, b"s" * 16, 5000)
    journal.segment(2).write_bytes((fields + struct.pack("<I", crc32(fields))).ljust(5000, b"?"))
    before = journal.contents()
    with pytest.raises(NewerVersionError, match="version 2"):
        journal.recover()
    assert journal.contents() == before


def test_what_looks_like_a_block_inside_a_payload_is_none(tmp_path: Path) -> None:
    """A hostile record cannot know the segment's salt, so it cannot prove anything durable."""
    journal = Journal(tmp_path, segment_bytes=1 << 16)
    fake = struct.pack("<4sHHQQIIqqQ", b"LSbk", 1, 0, 5, 1, 0, 0, 0, 0, 99)
    fake += struct.pack("<I", crc32(fake))
    journal.append(b"start")
    journal.sync()
    block = journal.append(fake * 50)
    journal.writer.close()
    flip(journal.segment(1), block.offset + block.length - 1)
    assert [found.seq for found in journal.recover().blocks] == [1]


# ---------------------------------------------------------------- damage that is accepted


class Accepted:
    """An operator who goes on, and what was gone on without."""

    def __init__(self) -> None:
        self.losses: list[Loss] = []
        self.faults: list[str] = []

    def __call__(self, losses: Sequence[Loss], faults: Sequence[str]) -> None:
        self.losses += losses
        self.faults += faults

    @property
    def ranges(self) -> list[tuple[int, int]]:
        return [(loss.first, loss.last) for loss in self.losses]

    def recover(self, journal: Journal, *, prefix_only: bool = False) -> Recovered:
        """And once more as a later start does, which finds nothing wrong any more."""
        found = self._recover(journal, self, prefix_only=prefix_only)
        again = self._recover(journal, None)
        assert (again.blocks, again.next_seq, again.cut) == (found.blocks, found.next_seq, None)
        reader = JournalReader(journal.folder)
        for block in found.blocks:
            assert bytes(reader.payload(block)) == journal.written[block.seq]
        return found

    def _recover(self, journal: Journal, accept: Accept | None, *, prefix_only: bool = False) -> Recovered:
        return recover(
            DISK,
            journal.folder,
            journal.quarantine,
            after_seq=0,
            known_durable_seq=max((loss.last for loss in self.losses), default=0),
            written_off=[Lost(loss.first, loss.last, loss.records) for loss in self.losses],
            prefix_only=prefix_only,
            accept=accept,
        )


def seqs(found: Recovered) -> list[int]:
    return [block.seq for block in found.blocks]


def test_nothing_is_asked_where_nothing_is_damaged(tmp_path: Path) -> None:
    """A torn tail is no loss: it was never accepted."""
    journal = written(tmp_path, 5)
    flip(journal.segment(2), journal.blocks[-1].offset)
    operator = Accepted()
    assert seqs(operator.recover(journal)) == [1, 2, 3, 4]
    assert (operator.losses, operator.faults) == ([], [])


@pytest.mark.parametrize("where", ["header", "payload"])
@pytest.mark.parametrize("victim", [1, 2, 3, 4, 6])
def test_blocks_behind_a_damaged_one_are_kept(tmp_path: Path, victim: int, where: str) -> None:
    """At the start, in the middle and at the end of a segment; the loss names file, bytes and block."""
    journal = written(tmp_path, 8)
    block = journal.blocks[victim - 1]
    start = block.offset - BLOCK_HEADER_BYTES
    flip(journal.segment(block.segment), start if where == "header" else block.offset)
    operator = Accepted()
    found = operator.recover(journal)
    assert seqs(found) == [seq for seq in range(1, 9) if seq != victim]
    assert found.next_seq == 9
    (loss,) = operator.losses
    assert (loss.first, loss.last, loss.records) == (victim, victim, int(where == "payload"))
    assert f"{segment_name(block.segment)}: block {victim}, which was durable" in loss.text
    assert f"bytes {start} to " in loss.text
    copies = [path for path in journal.quarantine.iterdir() if path.name.startswith(f"{block.segment:016d}-")]
    assert copies
    assert copies[0].read_bytes()


def test_every_hole_is_a_loss_of_its_own(tmp_path: Path) -> None:
    """Two damaged blocks with a whole one between."""
    journal = written(tmp_path, 8)
    for seq in (2, 3, 5):
        flip(journal.segment(journal.blocks[seq - 1].segment), journal.blocks[seq - 1].offset)
    operator = Accepted()
    assert seqs(operator.recover(journal)) == [1, 4, 6, 7, 8]
    assert operator.ranges == [(2, 3), (5, 5)]


def test_a_missing_segment_is_a_loss_of_its_blocks(tmp_path: Path) -> None:
    """How many records they had nobody knows."""
    journal = written(tmp_path, 8)
    journal.segment(2).unlink()
    operator = Accepted()
    assert seqs(operator.recover(journal)) == [1, 2, 3, 7, 8]
    assert [(loss.first, loss.last, loss.records) for loss in operator.losses] == [(4, 6, 0)]


@pytest.mark.parametrize("size", [0, 100, SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES + space_of(24) + 30])
def test_a_cut_segment_gives_what_is_left_of_it(tmp_path: Path, size: int) -> None:
    """Nothing, where even its header is gone."""
    journal = written(tmp_path, 8)
    os.truncate(journal.segment(2), size)
    operator = Accepted()
    left = [4] if size > SEGMENT_HEADER_BYTES else []
    assert seqs(operator.recover(journal)) == [1, 2, 3, *left, 7, 8]
    assert len(operator.faults) == (size < SEGMENT_HEADER_BYTES)


def test_a_damaged_segment_header_costs_no_block_while_its_salt_is_whole(tmp_path: Path) -> None:
    """Blocks are judged by the salt: the header is made again, a copy of the damaged one kept."""
    journal = written(tmp_path, 8)
    whole = journal.segment(2).read_bytes()
    for at in (0, 17, 44, 50):
        flip(journal.segment(2), at)
        operator = Accepted()
        assert seqs(operator.recover(journal)) == list(range(1, 9))
        assert (operator.losses, len(operator.faults)) == ([], 1)
        assert journal.segment(2).read_bytes() == whole
        assert (journal.quarantine / f"{2:016d}-0.damaged").exists()


def test_a_damaged_salt_costs_the_segment(tmp_path: Path) -> None:
    """Nothing in it can be told from noise any more."""
    journal = written(tmp_path, 8)
    flip(journal.segment(2), 30)
    operator = Accepted()
    assert seqs(operator.recover(journal)) == [1, 2, 3, 7, 8]
    assert operator.ranges == [(4, 6)]
    assert not journal.segment(2).exists()
    assert (journal.quarantine / f"{2:016d}-4096.damaged").exists()


def test_swapped_segments_cost_nothing(tmp_path: Path) -> None:
    """Each gets the header of its name; the order of blocks is that of their numbers."""
    journal = written(tmp_path, 8)
    journal.segment(1).rename(tmp_path / "one")
    journal.segment(2).rename(journal.segment(1))
    (tmp_path / "one").rename(journal.segment(2))
    operator = Accepted()
    assert seqs(operator.recover(journal)) == list(range(1, 9))
    assert (operator.losses, len(operator.faults)) == ([], 2)


@pytest.mark.parametrize("spoil", ["salt", "cut"])
def test_what_the_newest_segment_held_is_not_known(tmp_path: Path, spoil: str) -> None:
    """No block behind it says so: as many numbers are left out as it can have held at most."""
    journal = written(tmp_path, 7)
    if spoil == "salt":
        flip(journal.segment(3), 30)
    else:
        os.truncate(journal.segment(3), 100)
    operator = Accepted()
    found = operator.recover(journal)
    assert seqs(found) == [1, 2, 3, 4, 5, 6]
    assert operator.ranges == [(7, 6 + UNKNOWN_BLOCKS)]
    assert "is not known" in operator.losses[0].text
    assert found.next_seq == 7 + UNKNOWN_BLOCKS


def test_a_lost_block_that_comes_back_is_not_taken(tmp_path: Path) -> None:
    """It was written off for good: what was committed since has not counted it."""
    journal = written(tmp_path, 5)
    flip(journal.segment(1), journal.blocks[1].offset)
    operator = Accepted()
    operator.recover(journal)
    flip(journal.segment(1), journal.blocks[1].offset)
    found = recover(
        DISK,
        journal.folder,
        journal.quarantine,
        after_seq=0,
        written_off=[Lost(2, 2, 1)],
        known_durable_seq=2,
    )
    assert seqs(found) == [1, 3, 4, 5]


def test_only_the_prefix_is_kept_where_the_rest_can_be_read_again(tmp_path: Path) -> None:
    """All behind the first hole goes with it, so that what is left has no hole."""
    journal = written(tmp_path, 8)
    flip(journal.segment(2), journal.blocks[4].offset)
    operator = Accepted()
    found = operator.recover(journal, prefix_only=True)
    assert (seqs(found), operator.ranges, found.next_seq) == ([1, 2, 3, 4], [(5, 8)], 9)


def test_a_newer_version_is_not_overridden(tmp_path: Path) -> None:
    """It is no damage."""
    journal = written(tmp_path, 8)
    fields = struct.pack("<8sHxxxxxxQ16sQ", b"LSsegmnt", 2, 2, b"s" * 16, 5000)
    journal.segment(2).write_bytes((fields + struct.pack("<I", crc32(fields))).ljust(5000, b"?"))
    before = journal.contents()
    with pytest.raises(NewerVersionError):
        Accepted().recover(journal)
    assert journal.contents() == before


def test_losses_are_durable_before_anything_is_changed(tmp_path: Path) -> None:
    """A start that dies behind the copies finds the same damage again."""
    journal = written(tmp_path, 8)
    flip(journal.segment(1), 0)
    flip(journal.segment(2), 30)
    os.truncate(journal.segment(3), 100)
    before = journal.contents()

    def die(losses: Sequence[Loss], faults: Sequence[str]) -> None:
        raise Crashed

    with pytest.raises(Crashed):
        recover(DISK, journal.folder, journal.quarantine, after_seq=0, accept=die)
    assert journal.contents() == before


def test_few_torn_tails_stay_in_quarantine(tmp_path: Path) -> None:
    """They are evidence of crashes, and there may be many of those."""
    journal = Journal(tmp_path)
    for _ in range(20):
        journal.append()
        journal.sync()
        torn = journal.append()
        journal.writer.close()
        flip(journal.segment(torn.segment), torn.offset)
        found = journal.recover()
        journal.start(found.next_seq, found.next_segment)
    assert len(list(journal.quarantine.glob("*.torn"))) == TORN_KEPT


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_is_spoiled_nothing_else_is_lost(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Flips, cuts and missing segments, any of them: every block they did not touch is kept."""
    journal = written(tmp_path_factory.mktemp("j"), 12)
    touched: set[int] = set()
    for _ in range(data.draw(st.integers(1, 3))):
        touched |= _spoil(journal, data)
    operator = Accepted()
    found = operator.recover(journal)
    assert set(range(1, 13)) - set(seqs(found)) <= touched
    gone = {seq for first, last in operator.ranges for seq in range(first, min(last, 12) + 1)}
    assert gone | set(seqs(found)) >= set(range(1, max(gone | set(seqs(found)), default=0) + 1))
    assert not gone & set(seqs(found))


def _spoil(journal: Journal, data: st.DataObject) -> set[int]:
    """Blocks that it touches."""
    segments = sorted({block.segment for block in journal.blocks if journal.segment(block.segment).exists()})
    if not segments:
        return set()
    number = data.draw(st.sampled_from(segments))
    path = journal.segment(number)
    own = [block for block in journal.blocks if block.segment == number]
    what = data.draw(st.sampled_from(["flip", "cut", "gone", "salt"]))
    if what == "gone":
        path.unlink()
        return {block.seq for block in own}
    if what == "salt" and path.stat().st_size > 40:
        flip(path, data.draw(st.integers(24, 39)))
        return {block.seq for block in own}
    if what == "cut":
        size = data.draw(st.integers(0, path.stat().st_size))
        os.truncate(path, size)
        return {block.seq for block in own if block.offset + block.length > size}
    block = data.draw(st.sampled_from(own))
    at = data.draw(st.integers(block.offset - BLOCK_HEADER_BYTES, block.offset + block.length - 1))
    if at < path.stat().st_size:
        flip(path, at)
    return {block.seq}


# ---------------------------------------------------------------- crashes


def test_recovery_can_itself_be_cut_short(tmp_path: Path) -> None:
    """The process dies at every disk call of it; the next one ends where an undisturbed one does."""
    journal = Journal(tmp_path / "start")
    for _ in range(8):
        journal.append()
    journal.writer.add_segment(9)
    journal.writer.close()
    flip(journal.segment(2), journal.blocks[4].offset)
    expected = None
    for call in range(200):
        root = tmp_path / str(call)
        shutil.copytree(tmp_path / "start", root)
        disk = FaultyDisk(call)
        with contextlib.suppress(Crashed):
            recover(disk, root / "journal", root / "quarantine", after_seq=0)
        found = recover(DISK, root / "journal", root / "quarantine", after_seq=0)
        files = {path.name: path.read_bytes() for path in (root / "journal").iterdir()}
        state = (found.blocks, found.next_seq, files)
        expected = expected or state
        assert state == expected
        assert len(list((root / "quarantine").glob("*.torn"))) == 2
        if call and not disk.fired:
            break
    assert not disk.fired
    assert [block.seq for block in found.blocks] == [1, 2, 3, 4]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 40)),
        st.tuples(st.just("sync"), st.just(0)),
        st.tuples(st.just("free"), st.just(0)),
        st.tuples(st.just("power"), st.integers(0, 2**16)),
        st.tuples(st.just("killed"), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, fates=st.lists(st.sampled_from(Fate), min_size=1, max_size=20))
def test_after_any_crash_every_synced_block_is_there_and_no_wrong_one(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], fates: list[Fate]
) -> None:
    """Appends, syncs, recycled segments, kills and power cuts in any order.

    Each unsynced write is kept, dropped or garbled; what is found is always a prefix of what was
    written, at least up to the last sync, byte for byte.
    """
    disk = LossyDisk()
    journal = Journal(tmp_path_factory.mktemp("j"), disk=disk)
    committed = 0
    fate = _cycle(fates)
    for what, number in [*steps, ("power", 7)]:
        if what == "append":
            journal.append(os.urandom(number))
        elif what == "sync":
            journal.sync()
        elif what == "free":
            committed = _free(journal, committed)
        else:
            journal.writer.close()
            if what == "power":
                disk.lose_power(fate, number)
            committed = _restart(journal, committed)
    journal.writer.close()


def _cycle(fates: list[Fate]) -> Callable[[], Fate]:
    position = iter(range(10**9))
    return lambda: fates[next(position) % len(fates)]


def _free(journal: Journal, committed: int) -> int:
    """Commit all that is durable and free the segments that hold nothing else."""
    committed = max(committed, journal.synced)
    live = {block.segment for block in journal.blocks if block.seq > committed}
    newest = journal.blocks[-1].segment if journal.blocks else 0
    for number in sorted({block.segment for block in journal.blocks} - live - {newest}):
        free_segment(DISK, journal.folder, number)
        journal.free.append(number)
        journal.blocks = [block for block in journal.blocks if block.segment != number]
    return committed


def _restart(journal: Journal, committed: int) -> int:
    found = journal.recover(committed, journal.synced, journal.disk)
    assert found.next_seq > journal.synced
    assert [block.seq for block in found.blocks] == list(range(committed + 1, found.next_seq))
    reader = JournalReader(journal.folder)
    for block in found.blocks:
        assert bytes(reader.payload(block)) == journal.written[block.seq]
    again = journal.recover(after_seq=committed)
    assert (again.blocks, again.cut) == (found.blocks, None)
    journal.blocks = [block for block in journal.blocks if block.seq < found.next_seq]
    journal.synced = found.next_seq - 1
    journal.start(found.next_seq, found.next_segment)
    return committed
