from __future__ import annotations

import re
from pathlib import Path

import pytest

from collector.core.messages import FileKind
from collector.errors import ConfigurationError, DamagedError
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder, instance_id, new_instance, part_path, run_range, stream_name


@pytest.mark.parametrize("name", ["a", "Web-Shop_2", "x" * 64])
def test_stream_names(name: str) -> None:
    """1 to 64 of A-Z a-z 0-9 _ - are names."""
    assert stream_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "../../x", "a/b", "a.b", "a\0", "name\n", "é", "٣", " a", "stream=x"]
)
def test_hostile_stream_names_are_refused(name: str) -> None:
    """Nothing that could leave its folder, break a partition key or a line of a log is a name."""
    with pytest.raises(ConfigurationError, match="is no stream name"):
        stream_name(name)


PART = "part-0123456789abcdef-000000000007-000000000012-2.parquet"


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (FileKind.HITS, f"hits/v=1/stream=shop/date=2026-03-01/hour=05/{PART}"),
        (FileKind.REJECTS, f"rejects/v=1/stream=shop/date=2026-03-01/{PART}"),
        (FileKind.CONNECTIONS, f"connections/v=1/stream=shop/date=2026-03-01/{PART}"),
        (FileKind.IDS, "ids/000000000007-000000000012-2.run"),
        (FileKind.RESENDS, f"resends/{PART}"),
    ],
)
def test_paths_follow_the_contract(kind: FileKind, path: str) -> None:
    """Names of parts are a contract with every reader of the output."""
    hour = 1_772_341_200 // 3600  # 2026-03-01 05:00 UTC
    assert part_path(kind, "shop", "0123456789abcdef", first=7, last=12, share=2, hour=hour) == path


def test_dates_before_1970_have_paths() -> None:
    """A saved file may hold any time."""
    path = part_path(FileKind.HITS, "shop", "0" * 16, first=1, last=1, share=1, hour=-1)
    assert "/date=1969-12-31/hour=23/" in path


def test_run_names_are_read_back() -> None:
    """The range of blocks in a run's name is what says which runs a merged one replaces."""
    name = Path(part_path(FileKind.IDS, "s", "0" * 16, first=7, last=1_234_567_890_123, share=3)).name
    assert run_range(name) == (7, 1_234_567_890_123, 3)
    assert run_range("000000000007-000000000008-1.run.new") is None


def test_instances_are_random_hexadecimal() -> None:
    """16 digits, never the same twice."""
    assert re.fullmatch("[0-9a-f]{16}", new_instance())
    assert new_instance() != new_instance()


def test_a_state_folder_is_private(tmp_path: Path) -> None:
    """Every folder of it is 0700; making it again changes nothing."""
    state = StateFolder(tmp_path / "s")
    state.make(DISK)
    state.make(DISK)
    for folder in (state.root, state.journal, state.staging, state.ids, state.resends, state.quarantine):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_an_instance_is_sixteen_digits() -> None:
    """Paths are made of it, so a log that says anything else is damaged."""
    made = new_instance()
    assert instance_id(made) == made
    for text in ("", "../../../../../x/", "0123456789ABCDEF", made + "0", made + "\n"):
        with pytest.raises(DamagedError, match="16 hexadecimal digits"):
            instance_id(text)
