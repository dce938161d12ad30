from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest
from faulty_disk import BROKEN, NO_SPACE, FaultyDisk

from collector.core.messages import Block
from collector.errors import NoSpaceError, StorageError
from collector.storage.fs import DISK, Disk
from collector.storage.journal import (
    JournalReader,
    JournalWriter,
    Recovered,
    delete_free,
    free_name,
    free_segment,
    recover,
)
from collector.storage.segments import (
    BLOCK_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    MappedSegment,
    list_segments,
    segment_name,
    space_of,
)


def writer_on(
    folder: Path, *, segment_bytes: int = 1 << 16, next_seq: int = 1, disk: Disk = DISK
) -> JournalWriter:
    folder.mkdir(exist_ok=True)
    return JournalWriter(disk, folder, next_seq=next_seq, segment_bytes=segment_bytes)


def append(writer: JournalWriter, payload: bytes) -> Block | None:
    return writer.append(payload, records=1, connection=9, flags=2, collected_at_us=-5, held_us=1 << 40)


def appended(writer: JournalWriter, payload: bytes) -> Block:
    block = append(writer, payload)
    assert block is not None
    return block


def recovered(folder: Path, *, after_seq: int = 0, known_durable_seq: int = 0) -> Recovered:
    quarantine = folder.parent / "quarantine"
    quarantine.mkdir(exist_ok=True)
    return recover(DISK, folder, quarantine, after_seq=after_seq, known_durable_seq=known_durable_seq)


def payloads(folder: Path, blocks: list[Block]) -> list[bytes]:
    reader = JournalReader(folder)
    return [bytes(reader.payload(block)) for block in blocks]


# ---------------------------------------------------------------- writing


def test_blocks_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    """Payload and every number of a block survive a restart."""
    folder = tmp_path / "journal"
    writer = writer_on(folder)
    writer.add_segment(1)
    blocks = [appended(writer, payload) for payload in (b"one\n", b"", memoryview(b"three three\n"))]
    assert writer.sync() == 3
    writer.close()
    found = recovered(folder)
    assert found.blocks == blocks
    assert [block.seq for block in blocks] == [1, 2, 3]
    assert payloads(folder, blocks) == [b"one\n", b"", b"three three\n"]
    assert (found.next_seq, found.next_segment, found.cut) == (4, 2, None)
    assert found.last_block == {1: 3}


def test_every_block_header_is_aligned(tmp_path: Path) -> None:
    """A resync looks for headers at multiples of eight only."""
    writer = writer_on(tmp_path / "journal")
    writer.add_segment(1)
    offsets = [appended(writer, b"x" * size).offset - BLOCK_HEADER_BYTES for size in range(20)]
    writer.close()
    assert all(offset % 8 == 0 for offset in offsets)


def test_without_a_segment_there_is_no_room(tmp_path: Path) -> None:
    """A writer makes no segment by itself: the bound on the journal is kept elsewhere."""
    writer = writer_on(tmp_path / "journal")
    assert append(writer, b"x") is None
    assert writer.wants_segment


def test_a_spare_segment_is_wanted_as_soon_as_the_last_one_is_used(tmp_path: Path) -> None:
    """So that the next one is there before this one is full."""
    writer = writer_on(tmp_path / "journal")
    writer.add_segment(1)
    assert not writer.wants_segment
    appended(writer, b"x")
    assert writer.wants_segment
    writer.close()


def test_a_full_segment_is_followed_by_the_spare_one(tmp_path: Path) -> None:
    """Blocks fill a segment to its last byte; without a spare one the next has no room."""
    payload = b"x" * 100
    writer = writer_on(tmp_path / "journal", segment_bytes=SEGMENT_HEADER_BYTES + 2 * space_of(100))
    writer.add_segment(1)
    assert [appended(writer, payload).segment for _ in range(2)] == [1, 1]
    assert append(writer, payload) is None
    writer.add_segment(2)
    assert appended(writer, payload).segment == 2
    assert writer.sync() == 3
    writer.close()
    assert len(recovered(tmp_path / "journal").blocks) == 3


def test_a_block_larger_than_a_segment_gets_one_of_its_size(tmp_path: Path) -> None:
    """No record is too large for the journal that its own limit let through."""
    folder = tmp_path / "journal"
    writer = writer_on(folder, segment_bytes=SEGMENT_HEADER_BYTES + 1000)
    writer.add_segment(1)
    appended(writer, b"small\n")
    assert append(writer, b"y" * 5000) is None
    writer.add_segment(2)
    large = appended(writer, b"y" * 5000)
    writer.add_segment(3)
    blocks = [large, appended(writer, b"small\n")]
    writer.sync()
    writer.close()
    assert [block.segment for block in blocks] == [2, 3]
    assert recovered(folder).blocks[1:] == blocks
    assert payloads(folder, blocks) == [b"y" * 5000, b"small\n"]


def test_a_reader_sees_blocks_written_after_it_mapped_the_segment(tmp_path: Path) -> None:
    """A segment has its full size from the start, so one mapping is enough."""
    folder = tmp_path / "journal"
    writer, reader = writer_on(folder), JournalReader(folder)
    writer.add_segment(1)
    first = appended(writer, b"first\n")
    kept = reader.payload(first)
    second = appended(writer, b"second\n")
    assert bytes(reader.payload(second)) == b"second\n"
    reader.release(1)
    shutil.rmtree(folder)
    assert bytes(kept) == b"first\n"
    assert kept.readonly
    writer.close()


def test_a_failed_sync_ends_the_journal(tmp_path: Path) -> None:
    """A second sync of the same descriptor could succeed and prove nothing, so there is none."""
    disk = FaultyDisk(1, BROKEN, only=frozenset({"fdatasync"}))
    writer = writer_on(tmp_path / "journal", disk=disk)
    writer.add_segment(1)
    appended(writer, b"x")
    with pytest.raises(StorageError, match="fdatasync"):
        writer.sync()
    with pytest.raises(StorageError, match="failed to sync before"):
        writer.sync()
    with pytest.raises(StorageError, match="failed to sync before"):
        append(writer, b"y")
    assert disk.calls == ["fdatasync"]
    writer.close()


def test_a_block_that_met_a_full_disk_can_be_appended_again(tmp_path: Path) -> None:
    """NoSpaceError means that nothing was appended, though half of it may be on disk."""
    folder = tmp_path / "journal"
    disk = FaultyDisk(2, NO_SPACE, only=frozenset({"pwritev"}))
    writer = writer_on(folder, disk=disk)
    writer.add_segment(1)
    with pytest.raises(NoSpaceError):
        append(writer, b"x" * 1000)
    block = appended(writer, b"x" * 1000)
    assert block.seq == 1
    writer.sync()
    writer.close()
    assert recovered(folder).blocks == [block]


def test_a_segment_there_is_no_room_for_leaves_nothing_behind(tmp_path: Path) -> None:
    """Whichever call says that the disk is full, and for a recycled file too."""
    folder = tmp_path / "journal"
    folder.mkdir()
    for call in range(1, 20):
        (folder / free_name(1)).write_bytes(b"stale" * 1000)
        disk = FaultyDisk(call, NO_SPACE, only=frozenset({"truncate", "allocate", "pwritev"}))
        writer = writer_on(folder, disk=disk)
        try:
            writer.add_segment(2, free_name(1))
        except NoSpaceError:
            assert os.listdir(folder) == []
            assert writer.wants_segment
            continue
        writer.close()
        break
    assert not disk.fired
    assert os.listdir(folder) == [segment_name(2)]


def test_sync_never_claims_what_was_appended_after_it_began(tmp_path: Path) -> None:
    """It runs in a thread beside append: what it reports is what was written before its first disk call."""

    class SlowDisk(Disk):
        def fdatasync(self, fd: int) -> None:
            began.set()
            assert go_on.wait(30)
            super().fdatasync(fd)

    began, go_on = threading.Event(), threading.Event()
    writer = writer_on(tmp_path / "journal", disk=SlowDisk(), segment_bytes=SEGMENT_HEADER_BYTES + 400)
    writer.add_segment(1)
    appended(writer, b"x" * 200)
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(writer.sync()))
    thread.start()
    assert began.wait(30)
    writer.add_segment(2)
    appended(writer, b"y" * 200)
    go_on.set()
    thread.join()
    assert results == [1]
    third = appended(writer, b"z" * 20)
    assert writer.sync() == 3
    writer.close()
    segment = MappedSegment(DISK, tmp_path / "journal", third.segment)
    header = segment.header_at(third.offset - BLOCK_HEADER_BYTES)
    segment.close()
    assert header is not None
    assert header.synced_seq == 1


def test_a_full_segment_is_synced_before_its_successor_counts(tmp_path: Path) -> None:
    """The order of the syncs is the order of the blocks."""

    class OrderedDisk(Disk):
        def fdatasync(self, fd: int) -> None:
            synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
            super().fdatasync(fd)

    synced: list[str] = []
    writer = writer_on(tmp_path / "journal", disk=OrderedDisk(), segment_bytes=SEGMENT_HEADER_BYTES + 400)
    for number in (1, 2, 3):
        writer.add_segment(number)
        appended(writer, b"x" * 300)
    assert writer.sync() == 3
    assert synced == [segment_name(number) for number in (1, 2, 3)]
    appended_none = append(writer, b"x" * 300)
    assert appended_none is None
    assert writer.sync() == 3
    assert len(synced) == 3
    writer.close()


def test_full_segments_are_closed_once_synced(tmp_path: Path) -> None:
    """A year of segments leaves two descriptors open."""
    folder = tmp_path / "journal"
    writer = writer_on(folder, segment_bytes=SEGMENT_HEADER_BYTES + 400)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(1, 10):
        writer.add_segment(number)
        appended(writer, b"x" * 300)
        writer.sync()
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    writer.close()
    assert len(os.listdir("/proc/self/fd")) == before


# ---------------------------------------------------------------- freeing and recycling


def test_stale_blocks_of_a_recycled_segment_never_come_back(tmp_path: Path) -> None:
    """The old blocks lie at the same offsets with whole checksums, but under another salt."""
    folder = tmp_path / "journal"
    writer = writer_on(folder)
    writer.add_segment(1)
    for _ in range(5):
        appended(writer, b"old!\n")
    writer.sync()
    writer.close()
    free_segment(DISK, folder, 1)
    writer = writer_on(folder, next_seq=6)
    writer.add_segment(2, free_name(1))
    block = appended(writer, b"new!\n")
    writer.sync()
    writer.close()
    found = recovered(folder, after_seq=5)
    assert found.blocks == [block]
    assert found.cut is None
    assert b"old!" in (folder / segment_name(2)).read_bytes()


def test_every_use_of_a_segment_has_its_own_salt(tmp_path: Path) -> None:
    """What a record can learn of one block's checksum helps it nowhere else."""
    folder = tmp_path / "journal"
    writer = writer_on(folder)
    writer.add_segment(1)
    first = (folder / segment_name(1)).read_bytes()[24:40]
    writer.close()
    free_segment(DISK, folder, 1)
    writer = writer_on(folder)
    writer.add_segment(2, free_name(1))
    writer.close()
    assert (folder / segment_name(2)).read_bytes()[24:40] != first


def test_a_recycled_segment_without_a_block_is_not_taken_for_torn(tmp_path: Path) -> None:
    """Its old bytes begin where its first block will be."""
    folder = tmp_path / "journal"
    folder.mkdir()
    (folder / free_name(1)).write_bytes(b"stale" * 10_000)
    writer = writer_on(folder)
    writer.add_segment(2, free_name(1))
    writer.close()
    assert recovered(folder).cut is None


def test_a_segment_is_durable_before_it_is_used(tmp_path: Path) -> None:
    """Header, then name; and the freeing of a recycled one before anything."""
    disk = FaultyDisk()
    folder = tmp_path / "journal"
    writer = writer_on(folder, disk=disk)
    writer.add_segment(1)
    made = ["open", "truncate", "allocate", "pwritev", "fsync", "rename_noreplace", "open", "fsync"]
    assert disk.calls == made
    writer.close()
    free_segment(DISK, folder, 1)
    disk.calls.clear()
    writer = writer_on(folder, disk=disk)
    writer.add_segment(2, free_name(1))
    assert disk.calls == ["open", "fsync", *made]
    writer.close()


def test_a_recycled_segment_gets_the_size_it_is_made_with(tmp_path: Path) -> None:
    """A cut or oversize segment can be recycled like any other."""
    folder = tmp_path / "journal"
    folder.mkdir()
    for number, size in ((1, 10), (2, 1 << 20)):
        (folder / free_name(number)).write_bytes(b"s" * size)
        writer = writer_on(folder)
        writer.add_segment(number + 10, free_name(number))
        writer.close()
        assert (folder / segment_name(number + 10)).stat().st_size == 1 << 16


def test_freed_segments_are_listed_recycled_or_deleted(tmp_path: Path) -> None:
    """Free files count for the next number: it is never given twice."""
    folder = tmp_path / "journal"
    writer = writer_on(folder)
    writer.add_segment(7)
    appended(writer, b"x")
    writer.sync()
    writer.close()
    free_segment(DISK, folder, 7)
    found = recovered(folder, after_seq=1)
    assert (found.free, found.next_segment, found.next_seq) == ((7,), 8, 2)
    delete_free(DISK, folder, 7)
    assert list_segments(DISK, folder) == ((), ())
