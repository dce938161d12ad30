"""How much one host carries: the simulator over TLS, the collector, and every hit counted in the Parquet.

``python bench/sustained.py --seconds 60 --rate 10000`` runs both on this machine, so the simulator's
share of the processors is part of the picture. Prints the machine, hits/s, CPU per hit by process,
the largest memory of all processes of the collector together, and whether every hit is a row.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import trustme

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SAMPLE_S = 0.5
START_S = 5.0
SIMULATOR = """
import sys
from pathlib import Path
from collector.commands.simulate import run
total, rate, folder = int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
run(total=total, hits_per_second=rate, tls_cert=folder / "cert.pem", tls_key=folder / "key.pem")
"""


def main() -> int:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="livestream-bench-", dir=arguments.folder) as scratch:
        return _measure(arguments, Path(scratch))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=10_000.0, help="hits a second; 0: a silent stream")
    parser.add_argument("--decoders", type=int, default=2)
    parser.add_argument("--folder", help="where the output goes; default: the system's temporary folder")
    return parser.parse_args()


def _measure(arguments: argparse.Namespace, folder: Path) -> int:
    _certificates(folder)
    total = round(arguments.rate * arguments.seconds)
    simulator = subprocess.Popen(
        [
            sys.executable,
            "-c",
            SIMULATOR,
            str(total if arguments.rate else 0),
            str(arguments.rate or 1),
            folder,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert simulator.stdout is not None
        collector = _collector(arguments, folder, simulator.stdout.readline().strip(), total)
        usage = _watch(collector, simulator.pid)
    finally:
        simulator.terminate()
        simulator.wait()
        simulator.stdout.close()
    hits = folder / "output" / "hits"
    rows = pq.read_table(hits, columns=[], partitioning=None).num_rows if hits.exists() else 0
    _report(arguments, usage, rows, total)
    return 0 if rows == total and collector.returncode == 0 else 1


def _certificates(folder: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))


def _collector(arguments: argparse.Namespace, folder: Path, url: str, total: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "collector", "run", "--url", url, "--output", str(folder / "output")]
    command += ["--set", f"tls.ca_file={folder / 'ca.pem'}", "--decoders", str(arguments.decoders)]
    command += ["--set", "parts.max_age_s=5", "--log-format", "json"]
    command += ["--stop-after-hits", str(total)] if total else ["--stop-after", str(arguments.seconds)]
    environment = os.environ | {
        "LIVESTREAM_TOKEN": "simulator-token",
        "LIVESTREAM_CLIENT_ID": "simulator-key",
    }
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


class Usage:
    """What the processes used, by what they are."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = defaultdict(float)
        self.started_cpu_s: dict[str, float] = {}
        """What the start took: of the first seconds."""
        self.peak_bytes = 0
        self.wall_s = 0.0


def _watch(collector: subprocess.Popen[bytes], simulator: int) -> Usage:
    usage = Usage()
    began = time.monotonic()
    while collector.poll() is None:
        children = _children(collector.pid)
        names = {collector.pid: "coordinator", simulator: "(simulator)", **children}
        memory = 0
        for pid, name in names.items():
            usage.cpu_s[f"{name} {pid}"] = max(usage.cpu_s[f"{name} {pid}"], _cpu_s(pid))
            memory += _memory_bytes(pid) if pid != simulator else 0
        if not usage.started_cpu_s and time.monotonic() - began >= START_S:
            usage.started_cpu_s = dict(usage.cpu_s)
        usage.peak_bytes = max(usage.peak_bytes, memory)
        time.sleep(SAMPLE_S)
    usage.wall_s = time.monotonic() - began
    return usage


def _children(parent: int) -> dict[int, str]:
    found = {}
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        found[int(pid)] = "reader" if b"reader" in command else "decoder"
    return found


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _memory_bytes(pid: int) -> int:
    """Anonymous and shared memory; mapped files, which the kernel can drop, are not counted."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    sizes = dict(line.split(":", 1) for line in status.splitlines())
    return sum(int(sizes[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem") if name in sizes)


def _report(arguments: argparse.Namespace, usage: Usage, rows: int, total: int) -> None:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    print(f"{os.cpu_count()} x {model}, Python {platform.python_version()}, {arguments.decoders} decoders")
    print(
        f"{rows:,} rows of {total:,} hits that were sent in {arguments.seconds:.0f} s or as fast as they were"
        f" read; from start to exit {usage.wall_s:.1f} s"
    )
    ours = 0.0
    for name, seconds in sorted(usage.cpu_s.items()):
        per_hit = f", {seconds / rows * 1e6:.1f} us a hit" if rows else ""
        steady = (seconds - usage.started_cpu_s.get(name, 0.0)) / (usage.wall_s - START_S)
        print(f"  {name.split()[0]:12} {seconds:6.1f} s of CPU{per_hit}; {steady:.2%} of a core once started")
        ours += 0.0 if name.startswith("(") else seconds
    if rows:
        print(f"  all of ours  {ours:6.1f} s of CPU, {ours / rows * 1e6:.1f} us a hit")
    print(
        f"  memory       {usage.peak_bytes / 2**20:.0f} MiB at most, all of ours together, mapped files apart"
    )


if __name__ == "__main__":
    sys.exit(main())
