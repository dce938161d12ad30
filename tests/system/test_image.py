"""The image without an engine: each RUN step of the Dockerfile in a chroot, then the collector in it.

Needs root, debootstrap and the way to packages that this machine is set up with; takes minutes.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from debian_rig import in_chroot, make_debian
from harness import PATIENCE_S, ROOT, wait_until

sys.path.insert(0, str(ROOT / "tests" / "deployment"))

from dockerfile import Stage, stages

SUITES = {"python:3.13-slim": ("trixie", "3.13")}
"""Debian's release below an official image, and the Python that both have."""

NEEDED = ("debootstrap", "unshare", "setpriv", "chroot")

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, NEEDED)), reason=f"needs root and {', '.join(NEEDED)}"
    ),
]


def make_base(folder: Path, image: str) -> Path:
    """What stands for an official Python image: Debian's own Python of the same version."""
    suite, version = SUITES[image]
    make_debian(folder, suite)
    found = in_chroot(folder, ["python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
    assert found.strip() == version
    return folder


def build(stage: Stage, root: Path, others: dict[str, Path]) -> dict[str, str]:
    """Carries its steps out. Gives the environment that it leaves."""
    environment: dict[str, str] = {}
    folder = Path("/")
    for instruction, rest in stage.steps:
        match instruction:
            case "ENV":
                for name, _, value in (pair.partition("=") for pair in shlex.split(rest)):
                    path = environment.get("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
                    environment[name] = value.replace("$PATH", path)
            case "ARG":
                name, _, default = rest.partition("=")
                environment[name] = default
            case "WORKDIR":
                folder = Path(rest)
                in_chroot(root, ["mkdir", "-p", rest])
            case "COPY":
                copy(root, folder, rest, others)
            case "RUN":
                print(f"RUN {rest}", file=sys.stderr)
                in_chroot(root, ["sh", "-c", f"cd {folder} && {rest}"], environment)
    return environment


def copy(root: Path, folder: Path, rest: str, others: dict[str, Path]) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "kernel.so")
    ((origin, sources, target),) = Stage("", "", [("COPY", rest)]).copies()
    for source in sources:
        found = (others[origin] if origin else ROOT) / source.lstrip("/")
        to = root / str(folder / target).lstrip("/")
        to = to / found.name if target.endswith("/") else to
        to.parent.mkdir(parents=True, exist_ok=True)
        if found.is_dir():
            shutil.copytree(found, to, symlinks=True, ignore=None if origin else ignored)
        else:
            shutil.copy(found, to)


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Iterator[tuple[Path, dict[str, str]]]:
    """The image as a folder, and its environment."""
    folder = tmp_path_factory.mktemp("image")
    base = make_base(folder / "base", stages()[0].base)
    roots: dict[str, Path] = {}
    environment: dict[str, str] = {}
    for stage in stages():
        root = folder / (stage.name or "image")
        subprocess.run(["cp", "-a", "--reflink=auto", base, root], check=True)
        environment = build(stage, root, roots)
        roots[stage.name or "image"] = root
    yield roots["image"], environment
    shutil.rmtree(folder)


START = """
set -e
mount --bind "$1" "$1"; cd "$1"
mount -t tmpfs -o mode=1777 tmpfs tmp
mount --bind "$2" data
mount -t tmpfs -o mode=1777 shm dev/shm
mount -t proc proc proc
mount -o remount,bind,ro .
shift 2
exec chroot . setpriv --reuid=10001 --regid=10001 --clear-groups --bounding-set=-all --no-new-privs "$@"
"""
"""`docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges -v ...:/data`."""


class Container:
    """The image's entry point as PID 1 of its own."""

    def __init__(
        self, image: tuple[Path, dict[str, str]], data: Path, *arguments: str, **environment: str
    ) -> None:
        root, own = image
        entry = [*stages()[-1].arguments("ENTRYPOINT"), *arguments]
        folders = [str(root), str(data)]
        command = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", START, "sh", *folders, *entry]
        os.chown(data, 10001, 10001)
        self.environment = own | {"HOME": "/data"} | environment
        self.process = subprocess.Popen(command, env=self.environment, stderr=subprocess.PIPE, text=True)

    @property
    def pid(self) -> int:
        """Of its PID 1, seen from outside."""
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])

    def healthy(self, port: int) -> bool:
        """As the image's own health check finds it, where the page listens on another port than usual."""
        check = [text.replace("9464", str(port)) for text in stages()[-1].health_check()]
        user = ["setpriv", "--reuid=10001", "--regid=10001", "--clear-groups"]
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--root", "--wd", *user, *check]
        return subprocess.run(inside, env=self.environment, check=False).returncode == 0

    def wait(self) -> tuple[int, str]:
        """Exit code and log."""
        _, log = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, log


def committed(data: Path) -> int:
    return sum(pq.read_metadata(path).num_rows for path in (data / "hits").rglob("*.parquet"))


def test_each_step_builds_and_the_kernel_is_in(image):
    """Every RUN of both stages works on the base's Python; no pip and no compiler are in the image."""
    root, _ = image
    python = "/opt/livestream-collector/bin/python"
    in_chroot(root, [python, "-P", "-c", "from collector.decoder.kernel.library import load; load()"])
    assert not list((root / "opt/livestream-collector").glob("lib/*/site-packages/pip"))
    assert not (root / "usr/bin/g++").exists()
    bytes_ = sum(at.lstat().st_size for at in (root / "opt").rglob("*") if at.is_file())
    print(f"/opt: {bytes_ >> 20} MiB")
    assert bytes_ < 600 << 20


def test_runs_read_only_without_root_and_drains_as_pid_1(image, tmp_path, make_service):
    """Nothing but /data and /tmp can be written; SIGTERM drains; a dead child is reaped; all is Parquet."""
    service = make_service(hits_per_second=1000.0)
    data = tmp_path / "data"
    data.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    container = Container(
        image,
        data,
        *("run", "--url", service.url, "--output", "/data"),
        LIVESTREAM_TOKEN="simulator-token",
        LIVESTREAM_CLIENT_ID="simulator-key",
        LIVESTREAM_STATUS__LISTEN=f"127.0.0.1:{port}",
        LIVESTREAM_RECONNECT__WAIT_S="0.6",
        LIVESTREAM_PARTS__MAX_AGE_S="0.5",
        LIVESTREAM_JOURNAL__RESERVE_BYTES="0",
    )
    wait_until(lambda: committed(data) > 0, "hits to be committed")
    status = Path(f"/proc/{container.pid}/status").read_text()
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    children = [
        int(pid) for pid in Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()
    ]
    os.kill(children[-1], signal.SIGKILL)  # PID 1 reaps and replaces it
    wait_until(lambda: not Path(f"/proc/{children[-1]}").exists(), "the dead child to be reaped")
    assert container.healthy(port)
    assert not container.healthy(1)
    os.kill(container.pid, signal.SIGTERM)
    code, log = container.wait()
    assert code == 0, log
    assert "drain.ended" in log
    found = Counter(path.suffix for path in data.rglob("*") if path.is_file() and ".state" not in path.parts)
    assert set(found) == {".parquet"}
    assert committed(data) > 0
