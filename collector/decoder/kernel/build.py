"""Compiles the kernel beside its source if it is not there: ``python -m collector.decoder.kernel.build``.

Run by ``scripts/setup``, by the build of a wheel and by whoever got a compiler later; imports nothing of the
collector. Without a compiler nothing is made, and the plain path decodes.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("kernel.cpp")
LIBRARY: Final = Path(__file__).with_name("kernel.so")
COMPILERS: Final = ("c++", "g++", "clang++")
"""Tried in this order where the environment's ``CXX`` names none."""

FLAGS: Final = ("-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")
ALONE: Final = ("-static-libstdc++", "-static-libgcc")
"""So that the library needs the C library only, whatever is installed where it runs."""

_EXPORTS: Final = "{ global: kernel_*; local: *; };\n"
"""A linker's version script: the C++ library inside must not be taken for that of another library."""


class BuildError(Exception):
    """Why there is no kernel, in one line."""

    def __init__(self, reason: str, output: str = "") -> None:
        super().__init__(reason)
        self.output = output
        """What the compiler said."""


def source_id() -> str:
    """What a library must have been made from."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]


def compiler() -> list[str]:
    """*Raises* BuildError."""
    try:
        if given := shlex.split(os.environ.get("CXX", "")):
            return given
    except ValueError as error:
        raise BuildError(f"CXX is no command: {error}") from error
    for name in COMPILERS:
        if shutil.which(name):
            return [name]
    raise BuildError("no C++ compiler was found (on Debian and Ubuntu: apt-get install g++; or set CXX)")


def build(target: Path = LIBRARY, flags: Sequence[str] = FLAGS, *, load: bool = False) -> None:
    """Under its name at once: a collector that has the old one mapped keeps it.

    ``load``: it must be one that this machine can load. *Blocks* for seconds. *Raises* BuildError.
    """
    found = compiler()
    try:
        with tempfile.TemporaryDirectory(prefix="kernel-", dir=target.parent) as folder:
            made = Path(folder) / target.name
            exports = Path(folder) / "exports"
            exports.write_text(_EXPORTS, encoding="ascii")
            named = (f'-DKERNEL_SOURCE="{source_id()}"', f"-Wl,--version-script={exports}")
            command = [*found, *flags, *named, "-o", str(made), str(SOURCE)]
            try:
                _run([*command, *ALONE])
            except BuildError:
                _run(command)  # some distributions have no static C++ library
            if not made.exists():
                raise BuildError(f"the compiler {command[0]} made nothing", shlex.join(command))
            if load and not is_current(made):
                raise BuildError(f"what the compiler {command[0]} made cannot be loaded here")
            made.replace(target)
    except OSError as error:
        raise BuildError(f"{target} cannot be written: {error}") from error


def _run(command: Sequence[str]) -> None:
    """*Raises* BuildError."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise BuildError(f"the compiler {command[0]} cannot be run: {error}") from error
    if done.returncode != 0:
        output = f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
        raise BuildError(f"the compiler {command[0]} failed with exit code {done.returncode}", output)


def built_from(library: ctypes.CDLL) -> str:
    """The ``source_id`` of a library. *Raises* AttributeError where it is none of ours."""
    function = library.kernel_source
    function.restype, function.argtypes = ctypes.c_char_p, []
    found: bytes = function()
    return found.decode()


def is_current(library: Path = LIBRARY) -> bool:
    """Whether it was made from the source as it is, and can be loaded here.

    Once for each path: the loader gives what was loaded by that name before.
    """
    try:
        return built_from(ctypes.CDLL(str(library))) == source_id()
    except (OSError, AttributeError):
        return False


def main() -> int:
    if is_current():
        return 0
    try:
        build(load=True)
    except BuildError as error:
        if error.output:
            print(error.output.rstrip(), file=sys.stderr)
        print(f"kernel: not built, so hits are decoded the plain, slower way: {error}", file=sys.stderr)
        return 1
    print(f"kernel: made {LIBRARY.name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
