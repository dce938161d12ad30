"""The facts of a status: a label and words each, one line, steered by nobody."""

from __future__ import annotations

import msgspec
import pytest
from states import HOSTILE, NOW_US, STATUSES

from collector.commands.facts import facts, moment
from collector.core.status import Token


@pytest.mark.parametrize("name", STATUSES)
def test_every_fact_is_one_line(name):
    """None is empty, none has a control character."""
    told = list(facts(STATUSES[name]))
    assert len({label for label, _ in told}) == len(told)
    assert all(words.isprintable() and words for _, words in told)


def test_they_say_what_an_operator_needs():
    """In numbers with their units."""
    status = msgspec.structs.replace(
        STATUSES["gap"], page="http://127.0.0.1:9464/", rejects=STATUSES["rejects-alarm"].rejects
    )
    told = dict(facts(status))
    assert told["Stream"] == "prod-suite; up 10 h 12 min, pid 4711, version 0.7.0"
    assert (
        told["Connection"]
        == "12 to livestream.adobe.net, open for 29 min: 2,112,004 records, 775 MiB of gzip"
    )
    assert told["Hits"] == "1,240.3 a second, the newest 0 s ago; Parquet is 12 s behind"
    assert told["Committed"] == "36,333,341 records = 36,324,180 rows + 9,157 resends + 4 rejects"
    assert told["Journal"] == "4 % of 8.0 GiB on disk, 11,761 records waiting for Parquet"
    assert told["Disk"] == "1.5 GiB free of 500 GiB; reading pauses below 1.0 GiB"
    assert told["Processes"].startswith("reader busy, decoder 1 busy, decoder 2 idle (restarted 1x)")
    assert told["Token"].startswith("by OAuth, renewed by itself, valid until 2026-")
    assert told["Gaps"].startswith("2 in the last 24 h; ")
    assert "hits are likely missing (612 s without a connection" in told["Gaps"]
    assert "not a JSON object" in told["Last reject"]
    assert told["Page"] == "http://127.0.0.1:9464/"
    assert "TOO LITTLE" in dict(facts(STATUSES["paused-disk-full"]))["Disk"]
    assert "FULL" in dict(facts(STATUSES["paused-journal-full"]))["Journal"]


def test_what_can_be_explained_is_named():
    """And when the next request is due."""
    told = dict(facts(STATUSES["waiting-409"]))
    assert told["More"] == "livestream-collector explain 409"
    assert told["Next request"].endswith("UTC (in 38 s)")
    assert told["Connection"] == "none is open"


def test_foreign_text_is_escaped_whatever_made_the_status():
    """The answer of another program at that socket, say."""
    hostile = "\x1b[2J\r\n" + HOSTILE[1]
    status = STATUSES["rejects-alarm"]
    told = facts(
        msgspec.structs.replace(
            status,
            stream=hostile,
            output=hostile,
            version=hostile,
            page=hostile,
            rejects=(msgspec.structs.replace(status.rejects[0], text=hostile, reason=hostile),),
            children=(msgspec.structs.replace(status.children[0], name=hostile),),
            connection=msgspec.structs.replace(status.connection, host=hostile, code=hostile),
            timeline=tuple(msgspec.structs.replace(at, words=hostile) for at in status.timeline),
        )
    )
    assert all(words.isprintable() for _, words in told)


@pytest.mark.parametrize(
    ("at_us", "words"),
    [
        (NOW_US - 1_000_000, "06:31:06 UTC"),
        (NOW_US + 90_000_000, "06:32:37 UTC (in 1 min 30 s)"),
        (NOW_US - 86_400_000_000, "2026-11-23 06:31:07 UTC"),
    ],
)
def test_a_moment_has_its_day_where_that_is_another(at_us, words):
    """And how long it is, where it is to come."""
    assert moment(at_us, NOW_US) == words


def test_a_token_without_an_end_has_none():
    """Nothing is said of 1970."""
    assert (
        dict(facts(msgspec.structs.replace(STATUSES["reading"], token=Token(kind="file"))))["Token"]
        == "from a file"
    )
