"""Compiles the kernel beside its source if it is not there: ``python -m collector.decoder.kernel.build``.

Run by ``scripts/setup``, by the build of a wheel and by whoever installs from source; imports nothing of
the collector. Without a compiler nothing is made, and the plain path decodes.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("kernel.cpp")
LIBRARY = Path(__file__).with_name("kernel.so")
COMPILERS = ("c++", "g++", "clang++")
"""Tried in this order where the environment's ``CXX`` names none."""

FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")
ALONE = ("-static-libstdc++", "-static-libgcc")
"""So that the library needs the C library only, whatever is installed where it runs."""


class BuildError(Exception):
    """Why there is no kernel, in words."""


def source_id() -> str:
    """What a library must have been made from."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]


def compiler() -> list[str]:
    """*Raises* BuildError."""
    if given := os.environ.get("CXX"):
        return shlex.split(given)
    for name in COMPILERS:
        if shutil.which(name):
            return [name]
    raise BuildError(
        "no C++ compiler was found (on Debian and Ubuntu: apt-get install g++; or set CXX);"
        " decoding is the plain, slower way"
    )


def build(target: Path = LIBRARY, flags: Sequence[str] = (*FLAGS, *ALONE)) -> None:
    """Under its name at once: a collector that has the old one mapped keeps it. *Raises* BuildError."""
    command = [*compiler(), *flags, f'-DKERNEL_SOURCE="{source_id()}"']
    with tempfile.TemporaryDirectory(prefix="kernel-", dir=target.parent) as folder:
        made = Path(folder) / target.name
        try:
            done = subprocess.run(
                [*command, "-o", str(made), str(SOURCE)], capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise BuildError(f"the compiler {command[0]} cannot be run: {error}") from error
        if done.returncode != 0:
            raise BuildError(f"{shlex.join(command)} failed:\n{done.stderr.strip()}")
        made.replace(target)


def is_current(library: Path = LIBRARY) -> bool:
    """Whether it was made from the source as it is."""
    return library.exists() and source_id().encode() in library.read_bytes()


def main() -> int:
    if is_current():
        return 0
    try:
        build()
    except BuildError as error:
        print(f"kernel: {error}", file=sys.stderr)
        return 1
    print(f"kernel: made {LIBRARY.name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
