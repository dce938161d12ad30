"""A canary in every hit, reject and secret: no byte of a bundle has it, whatever the collector does."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

from harness import ROOT, wait_until

CANARIES = {
    "LIVESTREAM_TOKEN": "canary-token-1",
    "LIVESTREAM_CLIENT_ID": "canary-id-2",
    "LIVESTREAM_PRIVACY_KEY": "canary-key-with-32-characters-at-least-3",
}
HIT = "canary-hit"


def hits(path: Path) -> Path:
    """Whole ones, odd ones, and what is none."""
    whole = [{"hitIdHigh": n, "hitIdLow": n, "pageName": HIT, "unknown": HIT} for n in range(1, 500)]
    lines = [json.dumps(hit) for hit in whole] + [
        f"{HIT} no json",
        json.dumps([HIT]),
        json.dumps({"ip": HIT}),
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def bundled(output: Path, file: Path) -> dict[str, str]:
    """By name, of what the command made; it is read as bytes, and no canary is in them."""
    command = [sys.executable, "-m", "collector", "bundle", "--output", str(output), "-o", str(file)]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | CANARIES, stdout=subprocess.DEVNULL)
    data = gzip.decompress(file.read_bytes())
    assert [word for word in (HIT, *CANARIES.values()) if word.encode() in data] == []
    subprocess.run(["tar", "xzf", file, "-C", file.parent], check=True)
    return {path.name: path.read_text() for path in (file.parent / "livestream-bundle").iterdir()}


def test_no_hit_and_no_secret_is_in_it(tmp_path, make_service, make_collector):
    """While the collector runs, when it has drained, and with a damaged log."""
    service = make_service(
        file=hits(tmp_path / "hits.jsonl"),
        token=CANARIES["LIVESTREAM_TOKEN"],
        api_key=CANARIES["LIVESTREAM_CLIENT_ID"],
    )
    collector = make_collector(service, **{"status.listen": "off"})
    collector.start(environment=CANARIES)
    wait_until(lambda: collector.rows() >= 500, "the hits")
    running = bundled(collector.output, tmp_path / "running.tar.gz")
    status = json.loads(running["status.json"])
    assert status["running"]
    assert [reject["text"] for reject in status["rejects"]] == [""] * 2
    events = [json.loads(line)["event"] for line in running["events.jsonl"].splitlines()]
    assert {"run.started", "connection.opened", "batch.committed"} <= set(events)
    assert collector.drain() == 0
    drained = bundled(collector.output, tmp_path / "drained.tar.gz")
    assert json.loads(drained["status.json"])["last_word"]["stopped"]["exit_code"] == 0
    assert "None answers" in drained["events.jsonl"]
    log = collector.state / "commit.log"
    log.write_bytes(log.read_bytes()[:200] + b"\0" + log.read_bytes()[201:])
    assert "DAMAGED" in bundled(collector.output, tmp_path / "damaged.tar.gz")["commit-log.txt"]
