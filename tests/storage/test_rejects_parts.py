"""Rejects parts as lines again: whole records, to the byte, whatever they look like."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faulty_disk import FaultyDisk
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.core.framing import Framer
from collector.errors import DamagedError, NewerVersionError, NoSpaceError, StorageError
from collector.reader.files import FileSource
from collector.storage.fs import DISK
from collector.storage.rejects import LeftOut, rejects_parts, version_of, write_lines


def make_part(path: Path, raws: list[bytes], reason: str = "not json: x") -> Path:
    table = pa.table(
        {"raw": pa.array(raws, pa.binary()), "reason": pa.array([reason] * len(raws), pa.string())}
    )
    pq.write_table(table.replace_schema_metadata({"collector.version": "1.2.3"}), path)
    return path


def read_back(lines: Path) -> list[bytes]:
    """As the reader does, by content: plain text or gzip."""
    source = FileSource(str(lines))
    text, framer = source.text(), Framer(1 << 20)
    frames = []
    while source.verdict is None:
        source.tick(0.0)
        text.push(source.take())
        frames += framer.feed(text.pull())
    frames += framer.finish(last_is_record=True).frames
    return [record for frame in frames for record in frame.payload.split(b"\n")[:-1]]


@given(st.lists(st.binary(min_size=1).filter(lambda raw: b"\n" not in raw)))
@settings(deadline=None)
def test_every_record_comes_back_as_it_is(tmp_path_factory, raws):
    """Bytes of any kind, with CRs at the end; a record is never empty and holds no LF."""
    folder = tmp_path_factory.mktemp("rejects")
    part = make_part(folder / "part.parquet", raws)
    assert write_lines(DISK, part, folder / "lines") == LeftOut()
    assert read_back(folder / "lines") == raws


def test_a_record_that_begins_like_gzip_is_text(tmp_path):
    """A file is told by its first bytes, so no record's bytes may come first."""
    part = make_part(tmp_path / "part.parquet", [b"\x1f\x8b\x08\x00", b"\r"])
    write_lines(DISK, part, tmp_path / "lines")
    assert read_back(tmp_path / "lines") == [b"\x1f\x8b\x08\x00", b"\r"]


def test_records_that_are_not_whole_are_left_out_and_counted(tmp_path):
    """Of an oversized record only the head was kept."""
    part = make_part(tmp_path / "part.parquet", [b"head", b"head"], "oversized: record of 9 bytes")
    assert write_lines(DISK, part, tmp_path / "lines") == LeftOut(cut=2)
    assert read_back(tmp_path / "lines") == []


def test_the_lines_are_for_nobody_else(tmp_path):
    """0600: hits are personal data, and the output folder may be open to more people."""
    write_lines(DISK, make_part(tmp_path / "part.parquet", [b"x"]), tmp_path / "lines")
    assert stat.S_IMODE((tmp_path / "lines").stat().st_mode) == 0o600


@pytest.mark.parametrize("damage", [b"", b"PAR1", None])
def test_what_is_no_whole_part_is_named_and_leaves_nothing(tmp_path, damage):
    """Empty, cut, or other columns."""
    part = make_part(tmp_path / "part.parquet", [b"x"])
    if damage is None:
        pq.write_table(pa.table({"other": [1]}), part)
    else:
        part.write_bytes(damage)
    with pytest.raises(DamagedError, match=r"part\.parquet"):
        write_lines(DISK, part, tmp_path / "lines")
    assert not (tmp_path / "lines").exists()


def test_a_part_says_which_version_wrote_it(tmp_path):
    """From its metadata; none there is none."""
    part = make_part(tmp_path / "part.parquet", [b"x"])
    assert version_of(DISK, part) == "1.2.3"
    pq.write_table(pa.table({"raw": [b"x"]}), part)
    assert version_of(DISK, part) == ""


def test_parts_of_one_stream_are_found_in_order(tmp_path):
    """By date, then instance and block; other streams, temporary files and other folders are not."""
    names = [
        "rejects/v=1/stream=shop/date=2026-01-01/part-a-1.parquet",
        "rejects/v=1/stream=shop/date=2026-01-02/part-a-2.parquet",
        "rejects/v=1/stream=shop/date=2026-01-02/part-b-1.parquet",
    ]
    others = [
        "rejects/v=1/stream=shop2/date=2026-01-01/part-a-1.parquet",
        "rejects/v=1/stream=shop/date=2026-01-02/part-b-1.parquet.tmp",
        "rejects/v=1/stream=shop/date=2026-01-02/_SUCCESS",
        "rejects/README",
        "hits/v=1/stream=shop/date=2026-01-01/part-a-1.parquet",
    ]
    for name in [*names, *others]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert rejects_parts(DISK, tmp_path, "shop") == [tmp_path / name for name in names]
    assert rejects_parts(DISK, tmp_path, "none") == []


def test_parts_of_a_newer_schema_are_refused(tmp_path):
    """What an older version makes of them nobody knows: use the newer one."""
    part = tmp_path / "rejects/v=2/stream=shop/date=2026-01-01/part-a-1.parquet"
    part.parent.mkdir(parents=True)
    make_part(part, [b"x"])
    with pytest.raises(NewerVersionError, match="v=2"):
        rejects_parts(DISK, tmp_path, "shop")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_whatever_call_fails_is_told_and_leaves_no_lines(tmp_path, code):
    """Call N for N = 1.. until it passes: an error of ours; a full disk as such, for it is waited out."""
    part = make_part(tmp_path / "part.parquet", [b"x" * 400_000, b"y"])
    lines = tmp_path / "lines"
    for number in range(1, 100):
        disk = FaultyDisk(number, code)
        kind = NoSpaceError if code == errno.ENOSPC else StorageError
        told = not _written(disk, part, lines, kind)
        if not disk.fired:
            break
        assert told, f"{disk.failed_call} failed unheard"
        if disk.failed_call != "set_mode":  # the start of the next run removes an empty one
            assert not lines.exists(), disk.failed_call
    assert number > 4
    assert read_back(lines) == [b"x" * 400_000, b"y"]


def _written(disk: FaultyDisk, part: Path, lines: Path, kind: type[StorageError]) -> bool:
    try:
        write_lines(disk, part, lines)
    except kind:
        return False
    return True
