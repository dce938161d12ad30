"""A stream that brings no hits: somebody is called, and nothing is stopped or lost."""

from __future__ import annotations

import signal
from collections import Counter

from harness import wait_until

LINES = [b'{"broken": %d' % n for n in range(300)] + [b"\xff\xfe not text %d" % n for n in range(50)]


def test_a_stream_of_rejects_is_taken_kept_and_called_out(make_service, make_collector, tmp_path):
    """One alarm with the most frequent reasons; every raw byte in a rejects part; a drain exits 0."""
    saved = tmp_path / "lines.jsonl"
    saved.write_bytes(b"\r\n".join(LINES) + b"\r\n")
    service = make_service(file=saved, hits_per_second=1000.0)
    collector = make_collector(service, **{"log.format": "json", "run.decoders": 1})
    collector.start()
    wait_until(lambda: collector.events("rejects.alarm"), "the alarm")
    wait_until(lambda: len(rejected(collector)) == len(LINES), "every line to be kept")
    collector.process.send_signal(signal.SIGTERM)
    assert collector.wait() == 0, collector.log
    (alarm,) = collector.events("rejects.alarm")
    assert alarm["level"] == "error"
    assert alarm["run"] >= 100
    assert alarm["ratio"] == 1
    assert "not json" in alarm["reasons"]
    assert f"decode --rejects --stream {service.settings.stream}" in alarm["remedy"]
    assert not collector.events("rejects.cleared")
    assert Counter(rejected(collector)) == Counter(LINES)
    assert len(service.requests) == 1, "the connection is held all the same"
    collector.assert_tidy()


def rejected(collector) -> list[bytes]:
    table = collector.table("rejects", ["raw"])
    return [] if table is None else table["raw"].to_pylist()
