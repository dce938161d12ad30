"""A Debian of its own in a folder, made by debootstrap from where this machine gets its packages."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

BUNDLE = "etc/ssl/certs/ca-certificates.crt"


def mirror() -> list[str]:
    """Where this machine gets its packages from; nothing: where debootstrap gets them by itself."""
    for path in [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.*")]:
        if path.suffix not in {".list", ".sources"} or not path.exists():
            continue
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["URIs:"], ["deb"]) and (uris := [at for at in words[1:] if "://" in at]):
                return uris[:1]
    return []


def make_debian(folder: Path, suite: str, *packages: str) -> Path:
    """With Python, as `python` too, and the way to packages that this machine has."""
    include = "--include=" + ",".join(("ca-certificates", "python3", "python3-venv", *packages))
    subprocess.run(["debootstrap", "--variant=minbase", include, suite, folder, *mirror()], check=True)
    (folder / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    for name in ("etc/resolv.conf", "etc/hosts", "etc/pip.conf", BUNDLE):
        if Path("/", name).exists():
            shutil.copy(Path("/", name), folder / name)
    return folder


def in_chroot(root: Path, command: list[str], environment: dict[str, str] | None = None) -> str:
    """As root, as a build does it."""
    passed = {
        name: value
        for name, value in os.environ.items()
        if name.lower().endswith("_proxy") or name in {"PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT"}
    }
    passed |= {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "PIP_CERT": f"/{BUNDLE}"}
    own = ["unshare", "--mount", "--pid", "--fork", f"--mount-proc={root}/proc"]
    done = subprocess.run(
        [*own, "chroot", str(root), *command],
        env=passed | (environment or {}),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, shlex.join(command)
    return done.stdout
