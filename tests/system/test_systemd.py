"""The unit under a real systemd, which nspawn boots over a Debian of its own; takes minutes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from debian_rig import in_chroot, make_debian
from harness import ROOT, Service, wait_until

NEEDED = ("debootstrap", "systemd-nspawn", "nsenter")
UNIT = "livestream-collector@web"
PROGRAM = "opt/livestream-collector"
SETTINGS = """
[stream]
url = "{url}"
name = "web"
[output]
folder = "/var/lib/livestream-collector/web"
[parts]
max_age_s = {max_age_s}
[reconnect]
wait_s = 0.6
[journal]
durability = "{durability}"
max_bytes = "512 MiB"
reserve_bytes = 0
[status]
listen = "off"
"""
DROP_IN = """
[Service]
WatchdogSec=2
RestartSec=1
LoadCredential=
LoadCredential=client-id:/etc/livestream-collector/%i.client-id
LoadCredential=token:/etc/livestream-collector/%i.token
Environment=
Environment=LIVESTREAM_CLIENT_ID_FILE=%d/client-id
Environment=LIVESTREAM_TOKEN_FILE=%d/token
"""

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, NEEDED)), reason=f"needs root and {', '.join(NEEDED)}"
    ),
]


class Host:
    """A booted Debian with the collector installed as docs/deployment.md says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        nspawn = ["systemd-nspawn", f"--directory={root}", "--boot", "--register=no", "--keep-unit"]
        self._nspawn = subprocess.Popen(
            [*nspawn, "--console=pipe", f"--machine=collector-{os.getpid()}"],
            env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self._children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        wait_until(self._children.read_text, "the container to begin")
        running = ("running", "degraded")
        wait_until(lambda: self.run("systemctl", "is-system-running").stdout.strip() in running, "the boot")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        pid = self._children.read_text().split()[-1]
        inside = [
            "nsenter",
            f"--target={pid}",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--cgroup",
            "--root",
            "--wd",
        ]
        path = f"/{PROGRAM}/bin:/usr/bin:/usr/sbin"
        return subprocess.run(
            [*inside, *command], env={"PATH": path}, capture_output=True, text=True, check=False
        )

    def show(self, name: str) -> str:
        return self.run("systemctl", "show", "--property", name, "--value", UNIT).stdout.strip()

    def signal(self, name: str) -> None:
        self.run("sh", "-c", f"kill -{name} {self.show('MainPID')}")

    def log(self) -> str:
        return self.run("journalctl", "--unit", UNIT, "--output", "cat", "--no-pager").stdout

    def settings(
        self, url: str, *, token: str = "simulator-token", durability: str = "disk", max_age_s: float = 1
    ) -> None:
        folder = self.root / "etc/livestream-collector"
        text = SETTINGS.format(url=url, durability=durability, max_age_s=max_age_s)
        (folder / "web.toml").write_text(text)
        for name, secret in (("client-id", "simulator-key"), ("token", token)):
            (folder / f"web.{name}").write_text(secret)
            (folder / f"web.{name}").chmod(0o600)

    def close(self) -> None:
        self.run("systemctl", "poweroff")
        self._nspawn.wait(60)


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> Iterator[Host]:
    root = tmp_path_factory.mktemp("systemd") / "root"
    make_debian(root, "trixie", "systemd", "systemd-sysv", "dbus")
    shutil.copy(ROOT / "requirements-run.lock", root / "root")
    in_chroot(root, ["python", "-m", "venv", f"/{PROGRAM}"])
    pip = [f"/{PROGRAM}/bin/pip", "install", "--quiet", "--only-binary", ":all:"]
    in_chroot(root, [*pip, "--require-hashes", "-r", "/root/requirements-run.lock"])
    (packages,) = (root / PROGRAM / "lib").glob("python*/site-packages")
    shutil.copytree(
        ROOT / "collector", packages / "collector"
    )  # with the kernel, which needs no more than glibc
    script = root / PROGRAM / "bin/livestream-collector"
    script.write_text(f"#!/{PROGRAM}/bin/python\nfrom collector.cli import main\nmain()\n")
    script.chmod(0o755)
    in_chroot(root, ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "livestream"])
    (root / "etc/livestream-collector").mkdir()
    units = root / "etc/systemd/system"
    shutil.copy(ROOT / "docs/deployment/livestream-collector@.service", units)
    (units / f"{UNIT}.service.d").mkdir()
    (units / f"{UNIT}.service.d/test.conf").write_text(DROP_IN)
    host = Host(root)
    yield host
    host.close()
    shutil.rmtree(root)


def reading(host: Host) -> bool:
    return host.show("StatusText").startswith("Reading since")


def test_shut_in_it_reads_decodes_restarts_and_drains(host, make_service):
    """All the sandbox is on, and everything works in it: kernel, credentials, watchdog, reload, drain."""
    service: Service = make_service(hits_per_second=300.0)
    host.settings(service.url)
    started = host.run("systemctl", "start", UNIT)
    assert started.returncode == 0, host.log()
    wait_until(lambda: reading(host), "hits")
    first = host.show("MainPID")
    status = host.run("cat", f"/proc/{first}/status").stdout
    assert "CapBnd:\t0000000000000000" in status
    assert "Seccomp:\t2" in status
    assert host.run("systemctl", "reload", UNIT).returncode == 0
    wait_until(lambda: "settings.reloaded" in host.log(), "the reload")

    host.signal("KILL")
    wait_until(lambda: host.show("MainPID") not in ("0", first) and reading(host), "another after the kill")
    second = host.show("MainPID")
    host.signal("STOP")
    wait_until(lambda: host.show("MainPID") not in ("0", second) and reading(host), "another after the hang")
    assert "Watchdog timeout" in host.log()

    assert host.run("systemctl", "stop", UNIT).returncode == 0
    assert (host.show("Result"), host.show("ExecMainStatus")) == ("success", "0")
    assert "left_blocks=0" in host.log().rpartition("drain.ended")[2]
    assert "decoder.plain" not in host.log()
    config = ["--config", "/etc/livestream-collector/web.toml"]
    verified = host.run("runuser", "-u", "livestream", "--", "livestream-collector", "verify", *config)
    assert verified.returncode == 0, verified.stdout


def test_a_journal_in_memory_outlives_the_service(host, make_service):
    """Neither the end of the service nor its next start takes away what /dev/shm holds."""
    service: Service = make_service(hits_per_second=300.0)
    host.settings(service.url, durability="memory", max_age_s=3600)
    assert host.run("systemctl", "start", UNIT).returncode == 0, host.log()
    wait_until(lambda: reading(host), "hits")
    wait_until(lambda: service.sent > 1000, "hits in the journal")
    first = host.show("MainPID")
    host.signal("KILL")
    wait_until(lambda: host.show("MainPID") not in ("0", first) and reading(host), "another after the kill")
    recovered = host.log().rpartition("run.recovered")[2]
    assert recovered.startswith(" blocks="), host.log()
    assert not recovered.startswith(" blocks=0")
    assert host.run("systemctl", "stop", UNIT).returncode == 0


def test_no_restart_after_a_refusal_for_good(host, make_service):
    """Exit code 3: the unit stays down, and its status says why."""
    service: Service = make_service()
    host.settings(service.url, token="not-the-right-one")
    host.run("systemctl", "start", UNIT)
    wait_until(lambda: host.show("ActiveState") == "failed", "the end")
    assert host.show("ExecMainStatus") == "3"
    assert host.show("StatusText").startswith("Ended with exit code 3: the service does not accept the token")
    assert len(service.requests) <= 2
