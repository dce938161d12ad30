"""Privacy through the whole collector: what is hidden is in no file and no log once it is committed."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from harness import PATIENCE_S, ROOT, Collector, Service, wait_until

from collector.simulator.hits import Hits, Timeline
from collector.simulator.settings import SimulatorSettings
from collector.storage.fs import DISK
from collector.storage.segments import list_segments

KEY = "canary-key-0123456789abcdef0123456789abcdef"
CANARY = "canary-value-4c1d"
SET = ["--set", "privacy.drop=ip,evars.evar5", "--set", "privacy.hash=userAgent,props.prop1"]
FIRST = json.loads(Hits(5, Timeline(start_s=1_790_000_000)).lines(0, 1)[0])


def lines() -> list[bytes]:
    """Hits, and what is none, with canaries where they are hidden."""
    shapes: list[object] = [
        {"ip": CANARY, "userAgent": CANARY},
        {"ip": [CANARY], "UserAgent": {"a": CANARY}},
        {"evars": {"evars": {"evar5": CANARY}}, "props": {"prop1": CANARY}},
        {"unknown": {"ip": CANARY}, "evars": CANARY},
    ]
    hits = [{**FIRST, "hitIdLow": 1000 + number, **shape} for number, shape in enumerate(shapes)]
    return [*(json.dumps(hit).encode() for hit in hits), CANARY.encode(), b'{"ip":"' + CANARY.encode()]


def decode(*arguments: object, key: str = KEY) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "collector", "decode", *map(str, arguments)]
    environment = os.environ | {"LIVESTREAM_PRIVACY_KEY": key}
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment
    )


def everything_in(folder: Path) -> str:
    """Every file, and of parts what is in them unpacked."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            found.append(str(path.read_bytes()))
        if path.suffix == ".parquet":
            found.append(str(pq.read_table(path, partitioning=None).to_pylist()))
    return "".join(found)


@pytest.mark.parametrize("kernel", ["auto", "off"])
def test_decode_leaves_nothing_hidden_behind(tmp_path, kernel):
    """In parts, rejects, the state folder and the log; and the hash can be computed again."""
    saved, output = tmp_path / "hits.jsonl", tmp_path / "output"
    saved.write_bytes(b"\n".join(lines()))
    more = ("--set", f"decode.kernel={kernel}", "--set", "journal.durability=disk")
    done = decode(saved, "--output", output, *SET, *more)
    assert done.returncode == 0, done.stderr
    said = everything_in(output) + done.stdout + done.stderr
    assert CANARY not in said
    assert KEY not in said
    rows = pq.read_table(output / "hits", partitioning=None).to_pylist()
    digest = hmac.new(KEY.encode(), CANARY.encode(), hashlib.sha256).hexdigest()
    assert rows[0]["userAgent"] == dict(rows[2]["props"])["prop1"] == digest
    assert all(row["ip"] is None for row in rows)
    rejects = pq.read_table(output / "rejects", partitioning=None).to_pylist()
    assert [row["raw"] for row in rejects] == [None, None]
    again = decode("--rejects", "--output", output, "--stream", "files")
    assert again.returncode == 0, again.stderr
    assert "2 can never be run again: [privacy] was set when they came" in again.stdout


def test_without_its_key_nothing_starts(tmp_path):
    """Exit 2, with how to make one; nothing was made on the disk."""
    saved = tmp_path / "hits.jsonl"
    saved.write_bytes(b"{}\n")
    for key, said in (("", "privacy.hash wants a key"), ("short", "has 5 characters")):
        done = decode(saved, "--output", tmp_path / "output", *SET, key=key)
        assert done.returncode == 2
        assert said in done.stderr
        assert not (tmp_path / "output").exists()


def test_a_drained_run_leaves_no_hit_as_it_was_sent(tmp_path):
    """Neither in segments that wait to be recycled nor in the last one; the key is in no process but one.

    It is the coordinator's environment, where it was given.
    """
    service = Service(SimulatorSettings(total=3000, hits_per_second=0))
    collector = Collector(
        service, tmp_path, settings={"log.format": "json", "journal.segment_bytes": "1 MiB"}
    )
    try:
        collector.start(
            *SET,
            environment={
                "LIVESTREAM_TOKEN": "simulator-token",
                "LIVESTREAM_CLIENT_ID": "simulator-key",
                "LIVESTREAM_PRIVACY_KEY": KEY,
            },
        )
        wait_until(lambda: collector.rows() == 3000, "every hit to be committed")
        for pid in collector.children().values():
            for name in ("cmdline", "environ"):
                assert KEY.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
        wait_until(lambda: not list_segments(DISK, collector.state / "journal").free, "no free segment")
        assert collector.drain() == 0
        collector.assert_complete(3000)
        assert list_segments(DISK, collector.state / "journal") == ((), ())
        assert KEY not in collector.log + everything_in(collector.output)
        verify = [sys.executable, "-m", "collector", "verify", "--output", collector.output]
        done = subprocess.run([*map(str, verify)], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        if collector.process is not None and collector.process.poll() is None:
            collector.kill_all()
        service.close()
