from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from faulty_disk import BROKEN, Crashed, Fate, FaultyDisk, LossyDisk
from hypothesis import given, settings
from hypothesis import strategies as st
from isal.isal_zlib import crc32

from collector.core.floor_record import FloorRecord
from collector.core.reconnect_table import Row
from collector.errors import NewerVersionError, StorageError
from collector.storage.floor import SLOT_BYTES, FloorFile, _packed
from collector.storage.fs import DISK, Disk


class Record(msgspec.Struct, frozen=True):
    number: int


def floor(folder: Path, disk: Disk = DISK) -> FloorFile[Record]:
    return FloorFile(disk, folder / "floor", Record)


def test_no_file_is_told_apart_from_no_record(tmp_path: Path) -> None:
    """No file: a first start. A file without a valid slot: something was there."""
    assert floor(tmp_path).read() == (None, False)
    (tmp_path / "floor").write_bytes(b"")
    assert floor(tmp_path).read() == (None, True)
    (tmp_path / "floor").write_bytes(os.urandom(10_000))
    assert floor(tmp_path).read() == (None, True)


def test_the_last_record_written_is_read(tmp_path: Path) -> None:
    """Over restarts, and with a writer that never read before."""
    for number in range(6):
        floor(tmp_path).write(Record(number))
        assert floor(tmp_path).read() == (Record(number), True)


def test_a_damaged_slot_leaves_the_other_one(tmp_path: Path) -> None:
    """A bit flipped anywhere in the newest slot gives the record before it."""
    file = floor(tmp_path)
    file.write(Record(1))
    file.write(Record(2))
    whole = (tmp_path / "floor").read_bytes()
    newest = _packed(2, msgspec.msgpack.encode(Record(2)))
    start = whole.index(newest)
    for at in range(start, start + len(newest.rstrip(b"\0"))):
        (tmp_path / "floor").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert floor(tmp_path).read() == (Record(1), True)


def test_a_write_cut_short_leaves_the_record_before(tmp_path: Path) -> None:
    """The process dies at every call of a write: the old record or the new one, never none."""
    for call in range(1, 20):
        (tmp_path / "floor").unlink(missing_ok=True)
        for number in (1, 2):
            floor(tmp_path).write(Record(number))
        disk = FaultyDisk(call)
        try:
            floor(tmp_path, disk).write(Record(3))
        except Crashed:
            assert floor(tmp_path).read() in [(Record(2), True), (Record(3), True)]
            continue
        break
    assert not disk.fired
    assert floor(tmp_path).read() == (Record(3), True)


def test_a_cut_file_does_not_grow_back_over_an_old_record(tmp_path: Path) -> None:
    """A slot that was cut within its zeros would check out again once the file is long enough."""
    for number in (1, 2):
        floor(tmp_path).write(Record(number))
    os.truncate(tmp_path / "floor", 100)
    floor(tmp_path).write(Record(3))
    assert floor(tmp_path).read() == (Record(3), True)


@settings(max_examples=60, deadline=None)
@given(writes=st.integers(1, 4), fate=st.sampled_from(Fate), seed=st.integers(0, 2**32))
def test_power_loss_in_the_middle_of_a_write(
    tmp_path_factory: pytest.TempPathFactory, writes: int, fate: Fate, seed: int
) -> None:
    """Whatever becomes of the unsynced slot, the other one is read."""

    class Interrupted(LossyDisk):
        def fdatasync(self, fd: int) -> None:
            if cutting:
                raise Crashed
            super().fdatasync(fd)

    folder = tmp_path_factory.mktemp("floor")
    disk, cutting = Interrupted(), False
    file = floor(folder, disk)
    for number in range(1, writes + 1):
        file.write(Record(number))
    cutting = True
    with pytest.raises(Crashed):
        file.write(Record(writes + 1))
    disk.lose_power(lambda: fate, seed)
    found, existed = floor(folder).read()
    possible = {Fate.KEPT: [1], Fate.DROPPED: [0], Fate.GARBLED: [0, 1]}[fate]
    assert existed
    assert found in [Record(writes + more) for more in possible]


def test_a_record_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """Without a durable record no request is sent, so the failure must be seen."""
    floor(tmp_path).write(Record(1))
    for call in ("open", "pwritev", "fdatasync"):
        disk = FaultyDisk(1 if call != "open" else 2, BROKEN, only=frozenset({call}))
        with pytest.raises(StorageError):
            floor(tmp_path, disk).write(Record(2))


def test_a_record_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """It may hold a longer wait than this version can read."""
    floor(tmp_path).write(Record(1))
    content = bytearray((tmp_path / "floor").read_bytes())
    slot = _packed(9, b"new").replace(b"LSfl\x01", b"LSfl\x02", 1)
    slot = slot[:16] + crc32(b"new", crc32(slot[:16])).to_bytes(4, "little") + slot[20:]
    content[:SLOT_BYTES] = slot
    (tmp_path / "floor").write_bytes(content)
    with pytest.raises(NewerVersionError):
        floor(tmp_path).read()


def test_the_largest_floor_record_fits(tmp_path: Path) -> None:
    """Every counter in use, every text at its longest."""
    record = FloorRecord(
        boot_id="0" * 36,
        written_s=1e9,
        held_until_s=1e9,
        not_before_s=1e9,
        open=True,
        cause=max((row.value for row in Row), key=len),
        counters={row.value: 1_000_000 for row in Row},
        settings="0" * 16,
        written_us=2**60,
    )
    file = FloorFile(DISK, tmp_path / "floor", FloorRecord)
    file.write(record)
    assert file.read() == (record, True)


def test_a_record_too_large_for_its_slot_is_refused(tmp_path: Path) -> None:
    """It would run into the other slot."""

    class Text(msgspec.Struct, frozen=True):
        text: str

    with pytest.raises(StorageError, match="does not fit"):
        FloorFile(DISK, tmp_path / "floor", Text).write(Text("x" * 600))
