from __future__ import annotations

import msgspec
import pytest

from collector.core.messages import UNREADABLE, FileKind, StagedFile

GOOD = ("1-1-1-hits.parquet", "hits/v=1/stream=web/date=2026-11-23/hour=11/part-x-1-2-1.parquet")


@pytest.mark.parametrize(
    ("staged", "final"),
    [
        ("../commit.log", GOOD[1]),
        ("a/b", GOOD[1]),
        ("..", GOOD[1]),
        (".hidden", GOOD[1]),
        (GOOD[0], "hits/../../etc/cron.d/x"),
        (GOOD[0], "/etc/cron.d/x"),
        (GOOD[0], "hits//etc/x"),
        (GOOD[0], "hits/v=1/.x"),
        (GOOD[0], "hits"),
        (GOOD[0], "hits/"),
        (GOOD[0], "rejects/v=1/x"),
        (GOOD[0], ".state/web/commit.log"),
        (GOOD[0], "hits/a\nb"),
        (GOOD[0], "hits/a\0b"),
        (GOOD[0], "hits/a b"),
    ],
)
def test_a_staged_file_has_names_of_ours(staged, final):
    """Wherever it comes from, a message or the commit log: paths are made of them, and files moved along."""
    StagedFile(FileKind.HITS, *GOOD, 1, b"", 1)
    with pytest.raises(ValueError, match="a staged file is named"):
        StagedFile(FileKind.HITS, staged, final, 1, b"", 1)
    encoded = msgspec.msgpack.encode(["hits", staged, final, 1, b"", 1])
    with pytest.raises(UNREADABLE, match="a staged file is named"):
        msgspec.msgpack.decode(encoded, type=StagedFile)
