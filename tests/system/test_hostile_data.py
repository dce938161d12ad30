"""Records and bodies that no service should send, through the whole collector; a plain reference judges."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from harness import PATIENCE_S, ROOT

from collector.simulator.scenario import Members, Rule
from tests import reference

MIB = 1 << 20
MAX_RECORD_BYTES = 16 * MIB
"""The default of ``journal.max_record_bytes``."""

HIT = b'{"hitIdHigh":%d,"hitIdLow":%d,"pageName":"an ordinary hit","evars":{"evars":{"evar1":"x"}}}'
OVERSIZED = b'{"hitIdHigh":1,"pageName":"' + b"x" * (64 * MIB) + b'"}'


def ids() -> list[bytes]:
    """At every border of what a 64-bit id can be written as, in one half and in both."""
    odd = [0, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -1, -(2**63), 10**30]
    texts = [str(number) for number in odd]
    texts += ['"18446744073709551615"', "1.5", "1e3", "9007199254740993.0", "null", "true", "[]", "{}", '""']
    halves = [f'{{"hitIdHigh":{text},"hitIdLow":7001,"zip":"{n}"}}' for n, text in enumerate(texts)]
    both = [f'{{"hitIdHigh":{text},"hitIdLow":{text},"zip":"both {n}"}}' for n, text in enumerate(texts)]
    missing = ['{"zip":"no id"}', '{"hitIdHigh":5,"zip":"no low"}', '{"hitIdLow":5,"zip":"no high"}']
    return [text.encode() for text in [*halves, *both, *missing]]


def odd_texts() -> list[bytes]:
    """Bad UTF-8, surrogates, separators, NUL, byte order marks, escapes for terminals."""
    rejected = [
        b'{"zip":"\xff"}',
        b'{"zip":"\xc3"}',
        b'{"zip":"\xed\xa0\x80"}',
        b'{"zip":"\xc0\x80"}',
        b'{"zip":"\xf8\x88\x80\x80\x80"}',
        b'\xef\xbb\xbf{"zip":"mark"}',
        b"\xff\xfe{\0}\0",
        b'{"zip":"\0"}',
        b"\0",
        b'{"zip":"a\tb"}',
        b"\x1b[2J\x1b]0;title\x07",
        b'2026-01-01T00:00:00Z ERROR   attention.needed reason="forged"',
    ]
    kept = [
        b'{"zip":"\\ud800"}',
        b'{"props":{"\\udfff":"\\ud800","prop1":"kept"}}',
        b'{"zip":"\\u0000","\\u0000":"\\u0000"}',
        '{"zip":"\u2028\u2029\x85\ufeff","new\u2028":1}'.encode(),
        b'{"zip":"\\u001b[31m","new":"\\r\\n{\\"event\\":\\"forged\\"}"}',
        '{"zip":"\U0010ffff\ufffe"}'.encode(),
    ]
    return rejected + kept


def odd_shapes() -> list[bytes]:
    """No JSON, no objects, deep ones, wide ones, equal keys, huge numbers, other types, null everywhere."""
    deep = [128, 129, 100_000]
    nested = [b'{"new":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}" for levels in deep]
    types = ["null", "true", "7", "-1.5e300", '""', '"text"', "[]", "[null]", "{}", '{"a":{"b":[1,{"c":2}]}}']
    changed = [
        ("{" + ",".join(f'"{name}":{text}' for name in reference.SHAPES) + "}").encode() for text in types
    ]
    unknown = b'{"n.e.w":1,"":2,"[0]":3,"extra":{"a":"b"},"collector_line":9,"received_at":"x","a b":[]}'
    return [
        *nested,
        *changed,
        unknown,
        b'{"zip":NaN}',
        b'{"products":[{"revenue":-Infinity}]}',
        b'{"zip":"1"}{"zip":"2"}',
        b'{"zip":"1"',
        b"[]",
        b"null",
        b'"zip"',
        b"<html><body>503</body></html>",
        b'{"zip":"1","zip":2,"zip":"3","zip":null}',
        b'{"props":{"a":"1","a":"2"},"props":{"b":"3"}}',
        b'{"browserWidth":' + b"9" * 400 + b',"geoDMA":9223372036854775808,"new":1e99999}',
        b'{"products":[{"revenue":1e999,"units":0.' + b"7" * 4000 + b"}]}",
        json.dumps({f"new{n}": n for n in range(20_000)}).encode(),
        json.dumps({"props": {f"p{n}": "v" if n % 100 else n for n in range(20_000)}}).encode(),
    ]


def corpus(*huge: bytes) -> list[bytes]:
    """Each odd record among ordinary ones, an ordinary one last."""
    odd = [*ids(), *odd_texts(), *odd_shapes(), *huge]
    pairs = ((HIT % (9000, number), line) for number, line in enumerate(odd))
    return [line for pair in pairs for line in pair] + [HIT % (9000, len(odd))]


def is_hit(line: bytes) -> bool:
    return len(line) <= MAX_RECORD_BYTES and reference.decode(line) is not None


def rows_of(output: Path, kind: str) -> list[dict]:
    folder = output / kind
    return pq.read_table(folder, partitioning=None).to_pylist() if folder.exists() else []


def judge(lines: list[bytes], output: Path) -> None:
    """Every record, in its order, is one row that says all it said, or one reject with its bytes."""
    rows = [row for kind in ("hits", "rejects") for row in rows_of(output, kind)]
    found = sorted(rows, key=lambda row: (row["collector_block"], row["collector_line"]))
    places = [(row["collector_block"], row["collector_line"]) for row in found]
    assert len(set(places)) == len(places)
    assert len(found) == len(lines)
    for line, row in zip(lines, found, strict=True):
        if not is_hit(line):
            assert row["raw"] == (line[:MIB] if len(line) > MAX_RECORD_BYTES else line), line[:200]
            assert row["reason"].isprintable()
            continue
        extra = reference.plain(("map", "text"), row["extra"] or {})
        rebuilt = reference.rebuild(reference.columns_of(row), extra)
        assert reference.same(rebuilt, reference.parse(line.decode())), line[:200]


def decode(output: Path, *paths: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "collector", "decode", *map(str, paths), "--output", str(output)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_hostile_records_through_decode(tmp_path):
    """A saved file of them: nothing ends the run, and each comes out as the reference says."""
    lines = corpus()
    path = tmp_path / "hostile.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    done = decode(tmp_path / "output", path)
    assert done.returncode == 0, done.stderr
    judge(lines, tmp_path / "output")


def test_hostile_records_through_run(tmp_path, make_service, make_collector):
    """The same over a connection, through gzip members whose borders are inside records, empty ones
    between, and a record of 64 MB, which is one reject: the stream goes on, nobody dies."""
    lines = corpus(OVERSIZED)
    path = tmp_path / "hostile.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    members = Rule(members=Members(every_hits=7, inside_record=True, empty=True))
    service = make_service(file=path, total=len(lines), hits_per_second=0, rules=(members,))
    collector = make_collector(service, **{"log.format": "json"})
    rows = sum(map(is_hit, lines))
    assert collector.run("--stop-after-hits", str(rows)) == 0, collector.log
    judge(lines, collector.output)
    (oversized,) = (row for row in rows_of(collector.output, "rejects") if len(row["raw"]) == MIB)
    assert str(len(OVERSIZED)) in oversized["reason"]
    assert hashlib.sha256(OVERSIZED).hexdigest() in oversized["reason"]
    assert collector.events("child.died") == []
    assert len(service.requests) == 1
    collector.assert_tidy()


@pytest.mark.matrix
def test_a_million_keys(tmp_path):
    """In one record: a row like any other, between its neighbours."""
    wide = b"{" + b",".join(b'"%x":%d' % (n, n % 10) for n in range(1_000_000)) + b"}"
    lines = [HIT % (1, 1), wide, HIT % (1, 2)]
    assert len(wide) < MAX_RECORD_BYTES
    path = tmp_path / "wide.jsonl"
    path.write_bytes(b"\n".join(lines))
    done = decode(tmp_path / "output", path)
    assert done.returncode == 0, done.stderr
    judge(lines, tmp_path / "output")


@pytest.mark.matrix
def test_nothing_but_rejects_of_one_byte(tmp_path):
    """A million lines of it, which is far more work than their bytes: all kept as rejects, exit 0."""
    path = tmp_path / "noise.jsonl"
    path.write_bytes(b"a\n" * 1_000_000)
    done = decode(tmp_path / "output", path)
    assert done.returncode == 0, done.stderr
    rejects = pq.read_table(tmp_path / "output" / "rejects", partitioning=None)
    assert rejects.num_rows == 1_000_000
    assert not (tmp_path / "output" / "hits").exists()
