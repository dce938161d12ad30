"""The kernel under libFuzzer and sanitizers, beside the targets in Python: it finds its way by coverage."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
from fuzzing import keep, kept
from targets_stream import LINES

sys.path.append(str(Path(__file__).parents[1] / "decoder"))
from kernel_build import compile_driver, environment

from collector.decoder.schema import WIRE_SCHEMA

COMPILERS = ("clang++", *(f"clang++-{version}" for version in range(21, 13, -1)))
NO_CLANG = """the kernel is left out of libFuzzer, and only compared with the plain path: there is no clang
with its sanitizers (on Debian: apt-get install clang libclang-rt-14-dev)"""
SANITIZED = ("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
FLAGS = ("-std=c++17", "-O2", "-g1", *SANITIZED, "-DKERNEL_FUZZ")
MOST_BYTES = 4096
"""Of an input: longer ones have nothing new, and are slow."""

COLUMNS = """zip browserWidth hitIdHigh hitIdLow javaEnabled mobileAudioSupport evars events exclude
    hierarchies mcAudiences mvvars products props tnt extra"""
"""Of every kind; with fewer an input costs less."""


class KernelEngine:
    """Runs from when it is made until ``finish``."""

    def __init__(self, compiler: str, minutes: float, seed: int) -> None:
        self._made = tempfile.TemporaryDirectory(prefix="fuzz-kernel-", dir="/dev/shm")
        self._folder = Path(self._made.name)
        if against := compile_driver([compiler], self._folder / "fuzz", FLAGS):
            raise OSError(against)
        self._environment = environment(
            self._folder, pa.schema([WIRE_SCHEMA.field(name) for name in COLUMNS.split()])
        )
        for name in ("seeds", "new", "merged", "found"):
            (self._folder / name).mkdir()
        for name, data in kept("kernel").items():
            (self._folder / "merged" / name).write_bytes(data)
        for name, data in {**LINES, **kept("decode")}.items():
            (self._folder / "seeds" / name).write_bytes(data)
        self._process = self._run(
            f"-max_total_time={60 * minutes:.0f}", f"-seed={seed}", "new", "merged", "seeds"
        )

    def finish(self, *, keep_more: bool) -> int:
        """Gives how many inputs failed; they are in the corpus. *Blocks* until the time is over."""
        self._process.wait()
        said = (self._folder / "said").read_text(errors="replace")
        print("libFuzzer:", said.strip().splitlines()[-1], flush=True)
        found = [path.read_bytes() for path in (self._folder / "found").iterdir()]
        if found or self._process.returncode != 0:
            print(said[-8000:], flush=True)
        for data in found:
            print(f"kernel: kept as {self._keep('found', data)}", flush=True)
        if keep_more:
            self._keep_what_leads_further()
        self._made.cleanup()
        return max(len(found), int(self._process.returncode != 0))

    def _keep_what_leads_further(self) -> None:
        """The smallest inputs that reach code that no kept one reaches."""
        before = set(os.listdir(self._folder / "merged"))
        if self._run("-merge=1", "-use_counters=0", "merged", "seeds", "new").wait() != 0:
            raise OSError((self._folder / "said").read_text(errors="replace")[-8000:])
        for path in (self._folder / "merged").iterdir():
            if path.name not in before:
                self._keep("reaches", path.read_bytes())

    def _run(self, *arguments: str) -> subprocess.Popen[bytes]:
        bounds = ("-artifact_prefix=found/", f"-max_len={MOST_BYTES}", "-timeout=20")
        with open(self._folder / "said", "wb") as said:
            return subprocess.Popen(
                [
                    "prlimit",
                    "--as=unlimited",
                    "./fuzz",
                    *bounds,
                    *arguments,
                ],  # sanitizers map more than there is
                cwd=self._folder,
                env=self._environment,
                stderr=said,
            )

    @staticmethod
    def _keep(label: str, data: bytes) -> Path:
        return keep("kernel", f"{label}-{hashlib.sha256(data).hexdigest()[:12]}", data)


def start(minutes: float, seed: int) -> KernelEngine | None:
    """``None``, and says so: there is no compiler for it."""
    for compiler in COMPILERS:
        if shutil.which(compiler):
            try:
                return KernelEngine(compiler, minutes, seed)
            except OSError as error:  # as where there is clang, and not what its sanitizers need
                print(error, flush=True)
    print(NO_CLANG, flush=True)
    return None
