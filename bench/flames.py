"""Where each process spends its time: flame graphs of a run at full rate, ``scripts/profile``.

Hits come prepared over TLS (``bench/sender.py``); everything is on. py-spy samples coordinator, reader
and each decoder, with the functions of compiled libraries; a thread that waits may pass for one that works.
There are two runs on the same bytes: one for NAME.svg, the flame graph, one for NAME.stacks, the stacks with
their counts, a line each, to be searched. Prints the files it made. Exit code 2: sampling is not permitted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench.sender import CLIENT, Sender, Stock, prepare

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
FORMS = {"flamegraph": "svg", "raw": "stacks"}
"""Of py-spy, and what the files are called."""
CHILDREN = {b"collector.reader.process": "reader", b"collector.decoder.process": "decoder"}

SECONDS = 10.0
HITS_PER_S = 40_000
"""So many are made for each second; where more could be taken, sampling ends with them."""
CHUNK_HITS = 100
HOLD_S = 3.0
"""From the request to the first hit: py-spy has found its way by then."""
PATIENCE_S = 60.0

REFUSED = """\
py-spy may not look into the processes of the collector: {reason}
They refuse every other process of the same user, as their environment may hold a token. So it has to be root:
  sudo scripts/profile
  docker run --cap-add SYS_PTRACE ...    in a container
and where the kernel refuses even that: sysctl kernel.yama.ptrace_scope must not be 3."""


GUARDED = (
    "import ctypes, time; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); print('up', flush=True); time.sleep(60)"
)
"""A process that may be looked into as little as those of the collector (PR_SET_DUMPABLE)."""


class Refused(Exception):  # noqa: N818 - it is the answer, not a defect
    """Raised when py-spy could not sample; with its words."""


def main() -> int:
    arguments = _arguments()
    folder = arguments.output or RESULTS / f"profile-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    try:
        _check_permitted()
        for path in _profiles(arguments, folder):
            print(path, flush=True)
    except Refused as error:
        print(REFUSED.format(reason=error), file=sys.stderr)
        return 2
    return 0


def _profiles(arguments: argparse.Namespace, folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="livestream-profile-") as scratch:
        hits = round(arguments.seconds * HITS_PER_S)
        print(f"profile: preparing {hits:,} hits", file=sys.stderr)
        stock = prepare(Path(scratch), hits, CHUNK_HITS)
        for form in FORMS:
            print(f"profile: a run for {form}", file=sys.stderr)
            yield from _run(arguments, Path(scratch, form), stock, form, folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of each run; default {SECONDS:.0f}")
    parser.add_argument("--output", type=Path, help="folder; default: a new one in bench/results")
    parser.add_argument("--decoders", type=int, default=2)
    return parser.parse_args()


def _run(arguments: argparse.Namespace, scratch: Path, stock: Stock, form: str, folder: Path) -> list[Path]:
    scratch.mkdir()
    with Sender(scratch, stock, hold_s=HOLD_S) as sender, _collector(sender, scratch, arguments) as collector:
        sender.requested_ns()
        paths = {
            pid: folder / f"{name}.{FORMS[form]}"
            for pid, name in _processes(collector.pid, arguments.decoders).items()
        }
        seconds = round(arguments.seconds + HOLD_S)
        spies = [_spy(pid, form, path, seconds) for pid, path in paths.items()]
        for spy in spies:
            _finish(spy)
    return sorted(paths.values())


@contextlib.contextmanager
def _collector(
    sender: Sender, scratch: Path, arguments: argparse.Namespace
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "collector", "run", *sender.trust, "--output", str(scratch / "output")]
    command += ["--decoders", str(arguments.decoders)]
    with open(scratch / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | CLIENT, stdout=log, stderr=log)
    try:
        yield process
    except (AssertionError, OSError):
        print((scratch / "log").read_text(errors="replace")[-2000:], file=sys.stderr)
        raise
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _processes(coordinator: int, decoders: int) -> dict[int, str]:
    """By process id. *Blocks* until all are there."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        found = {coordinator: "coordinator"}
        roles: list[str] = []
        for pid in Path(f"/proc/{coordinator}/task/{coordinator}/children").read_text().split():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if role := next((role for module, role in CHILDREN.items() if module in words), ""):
                roles.append(role)
                found[int(pid)] = f"decoder-{roles.count(role)}" if role == "decoder" else role
        if len(found) == 2 + decoders:
            return found
        time.sleep(0.05)
    raise TimeoutError(f"the collector did not start its processes within {PATIENCE_S:.0f} s")


def _spy(pid: int, form: str, path: Path, seconds: int) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).with_name("py-spy")), "record", "--native", "--pid", str(pid)]
    command += ["--format", form, "--output", str(path), "--duration", str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _finish(spy: subprocess.Popen[str]) -> None:
    """Raises Refused."""
    _, error = spy.communicate()
    if spy.returncode:
        raise Refused(error.strip().replace("\n", " ") or "it gives no reason")


def _check_permitted() -> None:
    """Before anything that takes long. Raises Refused."""
    with subprocess.Popen([sys.executable, "-c", GUARDED], stdout=subprocess.PIPE) as guarded:
        assert guarded.stdout is not None
        guarded.stdout.readline()
        try:
            _finish(_spy(guarded.pid, "raw", Path(os.devnull), 1))
        finally:
            guarded.kill()


if __name__ == "__main__":
    sys.exit(main())
