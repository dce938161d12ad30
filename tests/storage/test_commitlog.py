from __future__ import annotations

import os
import shutil
import struct
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest
from faulty_disk import BROKEN, NO_SPACE, Crashed, Fate, FaultyDisk, LossyDisk, cycle
from hypothesis import given, settings
from hypothesis import strategies as st
from isal.isal_zlib import crc32

from collector.core.entries import (
    BlockCount,
    Committed,
    ConnectionOpened,
    Entry,
    Intent,
    Made,
    Note,
    ShareStaged,
)
from collector.core.ledger import LogState
from collector.core.messages import FileKind, StagedFile, Totals
from collector.errors import DamagedError, NewerVersionError, NoSpaceError, StorageError
from collector.storage.archive import all_entries
from collector.storage.commitlog import (
    CommitLog,
    acknowledged_entry,
    acknowledged_path,
    archives,
    packed_checkpoint,
)
from collector.storage.fs import DISK, Disk
from collector.storage.layout import StateFolder

STAGED = StagedFile(FileKind.HITS, "a.part", "hits/a", 10, b"\0" * 32, 3)
INTENT = Intent(
    batch=1,
    last=2,
    shares=(ShareStaged(1, 3, 1, 0, (STAGED,)),),
    blocks=(BlockCount(1, 1, 4, 3, 1, 0, 99),),
    before=Totals(),
    held_us=(0, 5),
)
ENTRIES: list[Entry] = [
    Made("0" * 16, "shop", "shop-stream", 1),
    INTENT,
    Committed(1, 2, 100),
    Note("kind", "text with \n and ü"),
]


def filled(path: Path) -> list[int]:
    """Where each frame ends, the header's end first."""
    log = CommitLog.open(DISK, path)
    ends = [path.stat().st_size]
    for entry in ENTRIES:
        log.append(entry)
        ends.append(path.stat().st_size)
    log.close()
    return ends


def entries_of(path: Path) -> list[tuple[int, Entry]]:
    log = CommitLog.open(DISK, path)
    found = list(log.entries())
    log.close()
    return found


NUMBERED = list(enumerate(ENTRIES, 1))


def test_entries_are_read_back_in_order_with_their_numbers(tmp_path: Path) -> None:
    """Numbers start at 1 and have no holes, over any number of restarts."""
    path = tmp_path / "commit.log"
    filled(path)
    assert entries_of(path) == NUMBERED
    log = CommitLog.open(DISK, path)
    assert log.next_entry == 5
    assert log.append(Note("a", "b")) == 5
    assert [number for number, _ in log.entries()] == [1, 2, 3, 4, 5]
    log.close()


def test_several_entries_are_appended_with_one_sync(tmp_path: Path) -> None:
    """And the number given back is the last one's."""
    disk = FaultyDisk()
    log = CommitLog.open(disk, tmp_path / "commit.log")
    disk.calls.clear()
    assert log.append_all(ENTRIES) == 4
    assert disk.calls == ["pwritev", "fdatasync", "open", "pwritev"]
    log.close()
    assert entries_of(tmp_path / "commit.log") == NUMBERED


def test_an_append_cut_at_any_byte_never_was(tmp_path: Path) -> None:
    """The append was not acknowledged, so the log goes on without it; all before it stays."""
    path = tmp_path / "commit.log"
    *_, last, end = filled(path)
    acknowledged_path(path).unlink()
    whole = path.read_bytes()
    for size in range(last, end):
        path.write_bytes(whole[:size])
        assert entries_of(path) == NUMBERED[:-1]
        assert path.stat().st_size == last


def test_an_append_of_several_entries_is_all_or_nothing(tmp_path: Path) -> None:
    """Wherever it is torn, and whichever of its bytes are noise."""
    path = tmp_path / "commit.log"
    log = CommitLog.open(DISK, path)
    log.append(ENTRIES[0])
    start = path.stat().st_size
    log.append_all(ENTRIES[1:])
    log.close()
    acknowledged_path(path).unlink()
    whole = path.read_bytes()
    for at in range(start, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        assert entries_of(path) == NUMBERED[:1]


def test_zeros_after_the_last_entry_are_no_entry(tmp_path: Path) -> None:
    """A file system may give a file its new size before its new bytes."""
    path = tmp_path / "commit.log"
    end = filled(path)[-1]
    with path.open("ab") as file:
        file.write(bytes(100))
    assert entries_of(path) == NUMBERED
    assert path.stat().st_size == end


def test_a_bit_flipped_before_the_last_entry_is_damage(tmp_path: Path) -> None:
    """At every byte, lengths and header too: the start is refused, the offset named, nothing changed."""
    path = tmp_path / "commit.log"
    header, *_, last, _ = filled(path)
    acknowledged_path(path).unlink()
    whole = path.read_bytes()
    for at in range(last):
        flipped = whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]
        path.write_bytes(flipped)
        with pytest.raises(DamagedError, match=r"commit\.log: (bytes \d+ to \d+|its header)"):
            entries_of(path)
        assert path.read_bytes() == flipped
    assert header < last


def test_an_acknowledged_last_entry_that_is_damaged_is_no_torn_one(tmp_path: Path) -> None:
    """A bit flipped, or cut, at every byte of it: the start is refused and nothing is changed."""
    path = tmp_path / "commit.log"
    *_, last, end = filled(path)
    whole = path.read_bytes()
    flips = [whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] for at in range(last, end)]
    for content in [*flips, *(whole[:size] for size in range(last, end))]:
        path.write_bytes(content)
        with pytest.raises(DamagedError, match=rf"bytes {last} to {len(content)} are .* entries 4 to 4 were"):
            entries_of(path)
        assert path.read_bytes() == content


def test_a_log_that_is_gone_is_no_new_one(tmp_path: Path) -> None:
    """What was acknowledged says that there was one."""
    path = tmp_path / "commit.log"
    filled(path)
    path.unlink()
    with pytest.raises(DamagedError, match="of 4 entries, is missing"):
        entries_of(path)
    assert not path.exists()


def test_a_spoiled_acknowledgement_proves_nothing(tmp_path: Path) -> None:
    """It is not synced, so a power failure can garble it: then only its evidence is gone."""
    path = tmp_path / "commit.log"
    filled(path)
    whole = acknowledged_path(path).read_bytes()
    assert acknowledged_entry(DISK, path) == 4
    for at in range(len(whole)):
        acknowledged_path(path).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert acknowledged_entry(DISK, path) == 0
        acknowledged_path(path).write_bytes(whole[:at])
        assert acknowledged_entry(DISK, path) == 0
    assert entries_of(path) == NUMBERED


def test_what_an_open_log_holds_is_durable(tmp_path: Path) -> None:
    """A killed writer can leave a whole entry that was never synced; nobody acts on it before it is."""
    path = tmp_path / "commit.log"
    disk = LossyDisk()
    log = CommitLog.open(disk, path)
    log.append(ENTRIES[0])
    disk.fdatasync = lambda fd: None  # type: ignore[method-assign] - the writer dies before its sync
    log.append(ENTRIES[1])
    log.close()
    del disk.fdatasync  # type: ignore[method-assign]
    CommitLog.open(disk, path).close()
    disk.lose_power(lambda: Fate.DROPPED, 0)
    assert entries_of(path) == NUMBERED[:2]


def test_a_missing_or_doubled_entry_is_damage(tmp_path: Path) -> None:
    """Every frame is whole, but the numbers tell."""
    path = tmp_path / "commit.log"
    _, first, second, third, _ = filled(path)
    whole = path.read_bytes()
    for content in (whole[:first] + whole[second:], whole[:third] + whole[second:]):
        path.write_bytes(content)
        with pytest.raises(DamagedError, match="are numbered from"):
            entries_of(path)


def test_a_log_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """Nothing in it is cut or guessed at."""
    path = tmp_path / "commit.log"
    fields = struct.pack("<8sI", b"LScommit", 2)
    path.write_bytes(fields + struct.pack("<I", crc32(fields)) + b"who knows")
    with pytest.raises(NewerVersionError, match="version 2"):
        CommitLog.open(DISK, path)
    assert path.read_bytes().endswith(b"who knows")


def test_a_full_disk_leaves_no_half_entry(tmp_path: Path) -> None:
    """NoSpaceError means that the entry is not in the log; it can be appended later."""
    path = tmp_path / "commit.log"
    disk = FaultyDisk(3, NO_SPACE, only=frozenset({"pwritev"}))  # each append has a second, small write
    CommitLog.open(DISK, path).close()
    log = CommitLog.open(disk, path)
    log.append(ENTRIES[0])
    end = path.stat().st_size
    with pytest.raises(NoSpaceError):
        log.append(INTENT)
    assert path.stat().st_size == end
    assert log.append(ENTRIES[1]) == 2
    log.close()
    assert entries_of(path) == NUMBERED[:2]


@pytest.mark.parametrize("call", ["pwritev", "fdatasync"])
def test_after_a_failed_write_the_log_takes_nothing_more(tmp_path: Path, call: str) -> None:
    """What is on disk is unknown until it is opened again."""
    path = tmp_path / "commit.log"
    CommitLog.open(DISK, path).close()
    log = CommitLog.open(FaultyDisk(1, BROKEN, only=frozenset({call})), path)
    with pytest.raises(StorageError, match="failed"):
        log.append(ENTRIES[0])
    with pytest.raises(StorageError, match="restart"):
        log.append(ENTRIES[0])
    log.close()


def test_every_crash_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    """The process dies at call 1, 2, 3, ...; what append numbered is there, the rest all or not at all."""
    for call in range(1, 100):
        path = tmp_path / f"{call}.log"
        disk = FaultyDisk(call)
        acknowledged, fds = 0, set(os.listdir("/proc/self/fd"))
        try:
            log = CommitLog.open(disk, path)
            for entry in ENTRIES:
                acknowledged = log.append(entry)
            log.close()
        except Crashed:
            for fd in set(os.listdir("/proc/self/fd")) - fds:
                _close_if_on(int(fd), path)
        found = entries_of(path)
        assert found == NUMBERED[: len(found)]
        assert len(found) in {acknowledged, acknowledged + 1}
        if not disk.fired:
            break
    assert not disk.fired


def _close_if_on(fd: int, path: Path) -> None:
    try:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(str(path)):
            os.close(fd)
    except FileNotFoundError:
        pass


def test_a_symbolic_link_is_no_log(tmp_path: Path) -> None:
    """Entries are never appended to somebody else's file."""
    filled(tmp_path / "real.log")
    (tmp_path / "commit.log").symlink_to(tmp_path / "real.log")
    with pytest.raises(StorageError):
        CommitLog.open(DISK, tmp_path / "commit.log")


# ---------------------------------------------------------------- rotation


class Rotated:
    """A log with its ledger, small enough to be rotated after every few entries."""

    def __init__(self, root: Path, disk: Disk = DISK, rotate_bytes: int = 200) -> None:
        self.state = StateFolder(root)
        root.mkdir(exist_ok=True)
        self.ledger = LogState()
        self.log = CommitLog.open(disk, self.state.commit_log, rotate_bytes=rotate_bytes)
        for number, entry in self.log.entries():
            self.ledger.fold(number, entry)

    def append(self, entry: Entry) -> bool:
        """Whether the log was rotated behind it."""
        self.ledger.fold(self.log.append(entry), entry)
        number = self.ledger.last_entry
        if not self.log.rotation_due:
            return False
        return self.log.rotate(number, packed_checkpoint(number, self.ledger.checkpoint()))

    def close(self) -> None:
        self.log.close()

    def names(self) -> list[str]:
        return [archive.path.name for archive in archives(DISK, self.state.archive)]


def batches(count: int) -> list[Entry]:
    """A connection and so many batches of it."""
    entries: list[Entry] = [Made("0" * 16, "shop", "shop", 1), ConnectionOpened(1, 0, 0, {}, 0)]
    for n in range(1, count + 1):
        block = BlockCount(n, 1, 4, 3, 1, 0, 99)
        entries.append(Intent(n, n, (), (block,), Totals(4 * n - 4, 3 * n - 3, n - 1, 0), (n, n)))
        entries.append(Committed(n, n, 100))
    return entries


def ledger_of(entries: list[Entry]) -> LogState:
    ledger = LogState()
    for number, entry in enumerate(entries, 1):
        ledger.fold(number, entry)
    return ledger


def test_a_rotated_log_opens_to_the_same_ledger_and_keeps_every_entry(tmp_path: Path) -> None:
    """Whenever it is opened again: from checkpoint and tail; the archives have the rest, without a hole."""
    entries = batches(12)
    rotations = 0
    for count, entry in enumerate(entries, 1):
        log = Rotated(tmp_path / "s")
        rotations += log.append(entry)
        log.close()
        again = Rotated(tmp_path / "s")
        assert again.ledger.checkpoint() == ledger_of(entries[:count]).checkpoint()
        assert again.log.next_entry == count + 1
        assert list(all_entries(DISK, again.state)) == list(enumerate(entries[:count], 1))
        again.close()
    assert rotations > 2
    assert again.names()[0].startswith("000000000001-")
    assert again.state.commit_log.stat().st_size < 2000


def test_a_log_of_before_rotations_opens(tmp_path: Path) -> None:
    """It has no checkpoint: its entries start at 1."""
    filled(tmp_path / "commit.log")
    assert list(all_entries(DISK, StateFolder(tmp_path))) == NUMBERED


def test_archives_are_sealed(tmp_path: Path) -> None:
    """None is ever written again."""
    log = Rotated(tmp_path / "s")
    seen: dict[str, bytes] = {}
    for entry in batches(12):
        log.append(entry)
        for name in log.names():
            content = (log.state.archive / name).read_bytes()
            assert seen.setdefault(name, content) == content
    log.close()
    assert len(seen) > 2


def test_a_rotation_waits_for_the_ledger(tmp_path: Path) -> None:
    """A checkpoint of fewer entries than the log has would forget some."""
    log = Rotated(tmp_path / "s", rotate_bytes=1 << 20)
    entries = batches(2)
    log.append(entries[0])
    packed = packed_checkpoint(1, log.ledger.checkpoint())
    log.append(entries[1])
    assert not log.log.rotate(1, packed)
    assert log.names() == []
    log.close()


@pytest.mark.parametrize("error", [None, BROKEN, NO_SPACE])
def test_a_rotation_cut_short_anywhere_loses_nothing(tmp_path: Path, error: int | None) -> None:
    """Every disk call fails, or the process dies there; it goes on and ends where others do."""
    entries = batches(5)
    whole = ledger_of(entries).checkpoint()
    for call in range(1, 500):
        root = tmp_path / str(call)
        disk = FaultyDisk(call, error)
        with suppress(Crashed, StorageError), closing(Rotated(root, disk)) as log:
            for entry in entries:
                log.append(entry)
        log = Rotated(root)
        for entry in entries[log.ledger.last_entry :]:
            log.append(entry)
        log.close()
        with closing(Rotated(root, FaultyDisk())) as log:
            assert log.ledger.checkpoint() == whole
        assert list(all_entries(DISK, log.state)) == list(enumerate(entries, 1))
        if not disk.fired:
            break
        shutil.rmtree(root)
    assert not disk.fired


@settings(max_examples=60, deadline=None)
@given(
    fates=st.lists(st.sampled_from(Fate), min_size=1, max_size=9),
    seed=st.integers(0, 99),
    dies=st.integers(1, 90),
)
def test_a_power_failure_in_a_rotation_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, fates: list[Fate], seed: int, dies: int
) -> None:
    """Whatever was not synced is kept, dropped or garbled; what was acknowledged is there."""
    root = tmp_path_factory.mktemp("l")
    power = LossyDisk()
    disk = FaultyDisk(dies, over=power)
    entries, acknowledged = batches(4), 0
    with suppress(Crashed), closing(Rotated(root / "s", disk)) as log:
        for acknowledged, entry in enumerate(entries):  # noqa: B007 - of the entries before this one
            log.append(entry)
    power.lose_power(cycle(fates), seed)
    again = Rotated(root / "s")
    found = again.ledger.last_entry
    assert acknowledged <= found <= len(entries)
    assert again.ledger.checkpoint() == ledger_of(entries[:found]).checkpoint()
    for entry in entries[found:]:
        again.append(entry)
    again.close()
    assert list(all_entries(DISK, again.state)) == list(enumerate(entries, 1))


def test_a_full_disk_puts_a_rotation_off(tmp_path: Path) -> None:
    """The log goes on as it is, and is rotated when there is room."""
    disk = FaultyDisk()
    log = Rotated(tmp_path / "s", disk)
    disk.rename = _no_space  # type: ignore[method-assign]
    entries = batches(12)
    for entry in entries[:12]:
        assert not log.append(entry)
    del disk.rename  # type: ignore[method-assign]
    rotated = [log.append(entry) for entry in entries[12:]]
    assert any(rotated)
    log.close()
    assert list(all_entries(DISK, log.state)) == list(enumerate(entries, 1))


def _no_space(source: object, target: object) -> None:
    raise NoSpaceError("full")


def test_an_archive_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    """With the numbers that are missing, or the file and its bytes. The collector does not need it."""
    log = Rotated(tmp_path / "s")
    for entry in batches(12):
        log.append(entry)
    log.close()
    first, second, *_ = archives(DISK, log.state.archive)
    whole = second.path.read_bytes()
    for content in (whole[:-1], whole + b"x", whole[:40] + b"?" + whole[41:], first.path.read_bytes()):
        second.path.write_bytes(content)
        with pytest.raises(DamagedError, match=rf"{second.path.name}.*bytes \d+ to \d+"):
            list(all_entries(DISK, log.state))
    second.path.unlink()
    with pytest.raises(DamagedError, match=f"entries {second.first} to {second.last} are missing"):
        list(all_entries(DISK, log.state))
    Rotated(tmp_path / "s").log.close()


def test_all_entries_can_be_read_while_the_log_is_written_and_rotated(tmp_path: Path) -> None:
    """Each reading is a whole log as of some moment: nothing missing, nothing twice, nothing torn."""
    log = Rotated(tmp_path / "s", FaultyDisk())
    entries = batches(150)
    log.append(entries[0])
    found: list[int] = []
    writer = threading.Thread(target=lambda: [log.append(entry) for entry in entries[1:]])
    writer.start()
    while writer.is_alive():
        seen = list(all_entries(DISK, log.state))
        assert seen == list(enumerate(entries[: len(seen)], 1))
        found.append(len(seen))
    writer.join()
    log.close()
    assert found == sorted(found)
