"""What the tests of ``query`` share: hostile records, and the command as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from harness import PATIENCE_S, ROOT

SENT = 2000
"""Hits of the stream ``demo-stream``."""

HOSTILE = "\x1b[2J\x1b]0;owned\x07 \x9b31m \u202eevil\r\n,\"'"
"""Clears the screen, names the window, colours, turns the writing round, breaks lines, ends values."""

IDS = (2**63, 2**64 - 1, 2**63 - 1, 0)
RECEIVED_S = 1_790_000_000
"""2026-09-21T14:13:20Z."""


def records() -> list[bytes]:
    """Of the stream ``files``: hits with the ids above and hostile text, then two rejects."""
    hits = [
        {
            "hitIdHigh": number,
            "hitIdLow": 2**64 - 1 - number,
            "pageName": HOSTILE,
            "evars": {"evars": {"evar1": HOSTILE, "evar2": f"plain {number}"}},
            "products": [{"name": HOSTILE, "units": 1, "evars": {"evar3": "x"}}],
            "receivedTimeGMT": RECEIVED_S + number % 7,
        }
        for number in IDS
    ]
    return [*(json.dumps(hit).encode() for hit in hits), b"\x1b[2Jno json", b"[]"]


def decode(folder: Path) -> None:
    (folder / "hits.jsonl").write_bytes(b"\n".join(records()))
    command = [sys.executable, "-m", "collector", "decode", str(folder / "hits.jsonl")]
    command += ["--output", str(folder / "output")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=PATIENCE_S)


def query(output: Path, *arguments: object, stdin: bytes = b"", **environment: str):
    """As a process whose output is a pipe."""
    command = [sys.executable, "-m", "collector", "query", "--output", str(output), *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
        env=os.environ | environment,
    )
