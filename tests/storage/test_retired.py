from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.core.entries import Retired, RetiredFile
from collector.errors import ConfigurationError, DamagedError
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder
from collector.storage.retired import (
    RetiredPart,
    RetiredRecord,
    forget_retired,
    read_retired,
    retired_records,
    write_retired,
)

PART = RetiredPart("hits/v=1/stream=shop/date=2026-03-01/hour=05/part-one.parquet", "ab" * 32)
RECORD = RetiredRecord((PART,), "older than 90 days", ("s3://archive/one.parquet",))


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    found = StateFolder(tmp_path / "state")
    found.make(DISK)
    return found


def test_a_record_is_written_read_and_forgotten(state: StateFolder) -> None:
    """As JSON that any tool can write; as an entry of the log with its hashes as bytes."""
    path = write_retired(DISK, state, "retention-1", RECORD)
    assert json.loads(path.read_text())["files"] == [{"path": PART.path, "sha256": PART.sha256}]
    assert list(retired_records(DISK, state)) == [path]
    expected = Retired((RetiredFile(PART.path, b"\xab" * 32),), RECORD.reason, RECORD.replaced_by, 7)
    assert read_retired(DISK, path, 7) == expected
    forget_retired(DISK, path)
    assert list(retired_records(DISK, state)) == []


def test_half_written_records_are_not_seen(state: StateFolder) -> None:
    """Only what has its final name; a folder that is not there holds none."""
    (state.retired / ".one.json.new").write_text("{")
    assert list(retired_records(DISK, state)) == []
    assert list(retired_records(DISK, StateFolder(state.root / "other"))) == []


@pytest.mark.parametrize("name", ["", "a/b", "..", "a.b", "ü", "x" * 65, "a\n"])
def test_a_name_cannot_lead_out_of_the_folder(state: StateFolder, name: str) -> None:
    """It comes from other programs."""
    with pytest.raises(ConfigurationError, match="is no name"):
        write_retired(DISK, state, name, RECORD)


@pytest.mark.parametrize(
    ("path", "sha256"),
    [
        ("/etc/passwd", "ab" * 32),
        ("hits/../../x", "ab" * 32),
        ("ids/1.run", "ab" * 32),
        ("hits//x", "ab" * 32),
        ("", "ab" * 32),
        ("hits/x", "ab" * 31),
        ("hits/x", "zz" * 32),
    ],
)
def test_a_record_of_something_else_than_parts_is_refused(state: StateFolder, path: str, sha256: str) -> None:
    """When it is written, and when somebody wrote it without us."""
    record = RetiredRecord((RetiredPart(path, sha256),), "why")
    with pytest.raises(ConfigurationError, match="retired record bad"):
        write_retired(DISK, state, "bad", record)
    by_hand = state.retired / "bad.json"
    by_hand.write_text(json.dumps({"files": [{"path": path, "sha256": sha256}], "reason": "why"}))
    with pytest.raises(DamagedError, match=r"bad\.json: .*; expected is"):
        read_retired(DISK, by_hand, 0)


@given(st.binary(max_size=60))
def test_anything_else_is_told_as_damage(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Never as another exception."""
    path = tmp_path_factory.mktemp("r") / "x.json"
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"x\.json"):
        read_retired(DISK, path, 0)
