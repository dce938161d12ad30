from __future__ import annotations

import errno
import hashlib
import inspect
import os
import stat
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faulty_disk import BROKEN, NO_SPACE, Crashed, FaultyDisk, ShortDisk
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import NoSpaceError, StorageError, SyncFailedError
from collector.storage import fs
from collector.storage.fs import DISK, Disk


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_write_to_a_full_disk_is_no_space(code: int) -> None:
    """A full disk or quota is the one storage error that is waited out, so it has its own type."""
    error = fs.storage_error("write", "/some/part", OSError(code, "full"))
    assert isinstance(error, NoSpaceError)
    assert "write of /some/part failed" in str(error)


@pytest.mark.parametrize("call", ["fsync", "fdatasync"])
def test_a_failed_sync_is_never_mere_lack_of_space(call: str) -> None:
    """After a failed sync the pages may be gone, whatever the errno: it must not be waited out."""
    error = fs.storage_error(call, "/some/part", OSError(errno.ENOSPC, "full"))
    assert type(error) is SyncFailedError


def test_other_errors_leave_as_storage_error_with_their_cause(tmp_path: Path) -> None:
    """The message names the call and the path; the foreign exception is the cause."""
    fd = DISK.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(StorageError, match=r"read of .*file failed: Bad file descriptor") as caught:
            DISK.pread(fd, 1, 0)
    finally:
        DISK.close(fd)
    assert isinstance(caught.value.__cause__, OSError)


def test_missing_and_existing_files_are_answers(tmp_path: Path) -> None:
    """FileNotFoundError and FileExistsError pass through unchanged."""
    (tmp_path / "there").touch()
    with pytest.raises(FileNotFoundError):
        DISK.read_file(tmp_path / "absent")
    with pytest.raises(FileExistsError):
        DISK.open(tmp_path / "there", os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def test_rename_noreplace_never_replaces(tmp_path: Path) -> None:
    """The target's content survives, and so does the source."""
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "old").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        DISK.rename_noreplace(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_bytes() == b"old"
    assert (tmp_path / "new").read_bytes() == b"new"
    DISK.rename_noreplace(tmp_path / "new", tmp_path / "other")
    assert sorted(os.listdir(tmp_path)) == ["old", "other"]


def test_rename_noreplace_without_the_system_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without RENAME_NOREPLACE gets the same rule from a link."""

    def absent(source: bytes, target: bytes) -> None:
        raise OSError(errno.EINVAL, "no such flag")

    monkeypatch.setattr(fs, "_renameat2", absent)
    test_rename_noreplace_never_replaces(tmp_path)


def test_folders_get_the_exact_mode_whatever_the_umask(tmp_path: Path) -> None:
    """State folders are 0700 under any umask, and so are the parents made with them."""
    before = os.umask(0o000)
    try:
        DISK.make_folder(tmp_path / "a" / "b")
        os.umask(0o777)
        DISK.make_folder(tmp_path / "open" / "c", 0o755)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b", "open", "open/c")]
    assert modes == [0o700, 0o700, 0o755, 0o755]


def test_written_files_get_the_exact_mode_whatever_the_umask(tmp_path: Path) -> None:
    """A part is readable as configured even under a umask of 077."""
    before = os.umask(0o077)
    try:
        DISK.create_writer(tmp_path / "part", 0o644).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "part").stat().st_mode) == 0o644


def test_a_new_folder_is_synced_into_each_parent(tmp_path: Path) -> None:
    """Every level that was made is durable: one sync per parent."""
    disk = FaultyDisk()
    disk.make_folder(tmp_path / "a" / "b" / "c")
    assert disk.calls.count("fsync") == 3


@given(pieces=st.lists(st.binary(max_size=50), min_size=1, max_size=5))
def test_short_writes_are_finished(pieces: list[bytes]) -> None:
    """However little one call takes, all bytes arrive, in order."""
    disk = ShortDisk()
    with tempfile.TemporaryFile() as file:
        disk.pwritev_all(file.fileno(), pieces, 3)
        assert os.pread(file.fileno(), 1000, 3) == b"".join(pieces)
    with tempfile.TemporaryFile() as file:
        disk.write_all(file.fileno(), b"".join(pieces))
        assert os.pread(file.fileno(), 1000, 0) == b"".join(pieces)


def test_a_file_written_durably_is_old_or_new_at_every_crash(tmp_path: Path) -> None:
    """Whatever call the process dies at, a reader finds the whole old content or the whole new one."""
    path = tmp_path / "record"
    seen = set()
    for call in range(1, 100):
        DISK.write_file_durably(path, b"old")
        disk = FaultyDisk(call)
        try:
            disk.write_file_durably(path, b"new content")
        except Crashed:
            seen.add(path.read_bytes())
            continue
        break
    assert not disk.fired
    assert seen == {b"old", b"new content"}
    assert path.read_bytes() == b"new content"


@pytest.mark.parametrize("code", [NO_SPACE, BROKEN])
def test_a_failed_durable_write_leaks_no_descriptor(tmp_path: Path, code: int) -> None:
    """Every call fails once; the descriptors are closed each time."""
    before = len(os.listdir("/proc/self/fd"))
    for call in range(1, 20):
        disk = FaultyDisk(call, code)
        try:
            disk.write_file_durably(tmp_path / "record", b"content")
        except StorageError:
            continue
        break
    assert not disk.fired
    assert len(os.listdir("/proc/self/fd")) == before


def test_pyarrow_writes_parquet_through_a_writer(tmp_path: Path) -> None:
    """The writer is all of a file that Parquet needs."""
    table = pa.table({"number": list(range(200_000))})
    writer = DISK.create_writer(tmp_path / "part.parquet")
    with pa.PythonFile(writer, mode="w") as sink:
        pq.write_table(table, sink)
        writer.sync()
        size = writer.tell()
    assert writer.closed
    assert (tmp_path / "part.parquet").stat().st_size == size
    assert pq.read_table(tmp_path / "part.parquet").equals(table)


def test_only_regular_files_have_a_size(tmp_path: Path) -> None:
    """A symbolic link in place of a file is refused, not followed."""
    (tmp_path / "real").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert DISK.size(tmp_path / "real") == 5
    with pytest.raises(StorageError, match="not a regular file"):
        DISK.size(tmp_path / "link")


def test_reading_never_follows_a_symbolic_link(tmp_path: Path) -> None:
    """A link planted in the state folder gives an error, not somebody else's file."""
    (tmp_path / "real").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(StorageError, match="symbolic links"):
        DISK.read_file(tmp_path / "link")


def test_sha256_is_of_the_whole_file(tmp_path: Path) -> None:
    """Also of one that is longer than one read."""
    content = os.urandom(3_000_001)
    (tmp_path / "part").write_bytes(content)
    assert Disk().sha256(tmp_path / "part") == hashlib.sha256(content).digest()


def test_a_reader_does_not_wait_for_what_is_no_file(tmp_path):
    """A pipe in the place of a file is refused; opening it would wait for a writer for ever."""
    os.mkfifo(tmp_path / "floor")
    with pytest.raises(StorageError, match="read of"):
        DISK.read_file(tmp_path / "floor")


def test_a_file_is_read_up_to_a_limit(tmp_path):
    """What must be small is never read whole to find that it is not."""
    (tmp_path / "file").write_bytes(b"0123456789" * 300_000)
    assert DISK.read_file(tmp_path / "file", 12) == b"012345678901"
    assert len(DISK.read_file(tmp_path / "file", (1 << 20) + 1)) == (1 << 20) + 1
    assert len(DISK.read_file(tmp_path / "file")) == 3_000_000


def test_a_folder_is_made_with_all_its_parents(tmp_path):
    """However many are missing; each with the mode asked for."""
    deep = tmp_path.joinpath(*["x"] * 300)
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 60)
    try:
        DISK.make_folder(deep, 0o750)
    finally:
        sys.setrecursionlimit(before)
    assert deep.stat().st_mode & 0o777 == deep.parent.stat().st_mode & 0o777 == 0o750
