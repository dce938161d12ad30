"""Building and loading the kernel: with a compiler, without, with broken ones; libraries that do not fit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from decode_rig import need_kernel

import collector
from collector.decoder.kernel import build, library
from collector.decoder.kernel.build import BuildError
from collector.decoder.kernel.library import NoKernelError, load

PACKAGE = Path(collector.__file__).parent
BROKEN = {
    "exit": ("exit 3", "failed with exit code 3"),
    "words": ("echo 'kernel.cpp:1: error: no' >&2; exit 1", "failed with exit code 1"),
    "nothing": ("exit 0", "made nothing"),
    "half": ('while [ "$1" != -o ]; do shift; done; echo half >"$2"; exit 1', "failed with exit code 1"),
    "no library": ('while [ "$1" != -o ]; do shift; done; echo text >"$2"', "cannot be loaded here"),
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """As installed: what builds and what is built from, and nothing else of the collector."""
    folder = tmp_path / "kernel"
    folder.mkdir()
    for path in (build.SOURCE, Path(build.__file__)):
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A library of this source, made by this machine's compiler."""
    need_kernel()
    target = tmp_path_factory.mktemp("made") / "kernel.so"
    build.build(target)
    return target


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def run_build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """As ``python -m collector.decoder.kernel.build`` would, without the collector."""
    kept = {name: value for name, value in os.environ.items() if name != "CXX"}
    return subprocess.run(
        [sys.executable, "-I", str(folder / "build.py")],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_without_a_compiler_nothing_is_made_and_one_line_says_why(folder, tmp_path):
    """It names what is missing and what to do."""
    done = run_build(folder, PATH=str(tmp_path))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "decoded the plain, slower way: no C++ compiler was found" in line
    assert "apt-get install g++" in line
    assert names(folder) == ["build.py", "kernel.cpp"]


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_compiler_says_so_in_the_last_line(folder, tmp_path, case):
    """Whatever it left behind; its own words come first."""
    text, reason = BROKEN[case]
    compiler = script(tmp_path / "broken", text)
    done = run_build(folder, CXX=str(compiler))
    assert done.returncode == 1
    *words, line = done.stderr.splitlines()
    assert "decoded the plain, slower way" in line
    assert reason in line
    assert ("kernel.cpp:1: error: no" in words) == (case == "words")
    assert names(folder) == ["build.py", "kernel.cpp"]


@pytest.mark.parametrize("case", ["exit", "nothing", "half", "no library"])
def test_a_library_that_was_there_stays_until_there_is_another(folder, tmp_path, case):
    """A collector may have it mapped."""
    (folder / "kernel.so").write_bytes(b"the old one")
    done = run_build(folder, CXX=str(script(tmp_path / "broken", BROKEN[case][0])))
    assert done.returncode == 1
    assert (folder / "kernel.so").read_bytes() == b"the old one"


@pytest.mark.parametrize(
    ("given", "reason"),
    [("/nowhere/c++", "cannot be run"), ("'", "CXX is no command")],
)
def test_a_compiler_that_cannot_be_run_is_a_reason(folder, given, reason):
    """CXX is what somebody wrote."""
    done = run_build(folder, CXX=given)
    assert done.returncode == 1
    assert reason in done.stderr.splitlines()[-1]


def test_a_folder_that_cannot_be_written_is_a_reason(tmp_path, monkeypatch):
    """Packages may be installed where only root writes."""
    monkeypatch.setenv("CXX", "true")
    with pytest.raises(BuildError, match="cannot be written"):
        build.build(tmp_path / "missing" / "kernel.so")


def test_a_compiler_without_a_static_library_makes_a_kernel_all_the_same(tmp_path, monkeypatch):
    """Some distributions have none. ``CXX`` may carry arguments."""
    write = 'for a; do [ "$a" != -static-libstdc++ ] || exit 1; done; echo "$1" >'
    compiler = script(tmp_path / "c", f'{write}"{tmp_path}/seen"; cp "{tmp_path}/seen" "{tmp_path}/made"')
    move = script(
        tmp_path / "d", f'"{compiler}" "$@" && while [ "$1" != -o ]; do shift; done && echo k >"$2"'
    )
    monkeypatch.setenv("CXX", f"{move} '-an argument'")
    build.build(tmp_path / "kernel.so")
    assert (tmp_path / "kernel.so").read_text() == "k\n"
    assert (tmp_path / "seen").read_text() == "-an argument\n"


def test_what_is_current_is_not_built_again(folder, made, tmp_path):
    """Every script builds first; mostly there is nothing to do."""
    shutil.copy(made, folder)
    done = run_build(folder, PATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_library_of_another_source_is_built_anew(folder, made):
    """And the build says so."""
    need_kernel()
    shutil.copy(made, folder)
    with (folder / "kernel.cpp").open("a") as source:
        source.write("// another line\n")
    done = run_build(folder)
    assert (done.returncode, done.stderr) == (0, "kernel: made kernel.so\n")
    assert (folder / "kernel.so").read_bytes() != made.read_bytes()
    assert run_build(folder).stderr == ""


def test_the_library_shows_its_own_functions_only(made):
    """Its C++ library must not be taken for pyarrow's, which is another."""
    kernel = load(made)
    assert kernel.kernel_new
    for name in ("_ZSt9terminatev", "__cxa_throw", "_ZnwmSt11align_val_t"):
        assert not hasattr(kernel, name)
    assert b"libstdc++.so" not in made.read_bytes()


def test_no_library_is_loaded_from_another_source(made, tmp_path, monkeypatch):
    """What the kernel gives must be what this version expects."""
    changed = tmp_path / "kernel.cpp"
    changed.write_bytes(build.SOURCE.read_bytes() + b"\n")
    monkeypatch.setattr(build, "SOURCE", changed)
    copy = Path(shutil.copy(made, tmp_path))
    with pytest.raises(NoKernelError, match=r"was built from another kernel\.cpp"):
        load(copy)


def test_without_the_source_the_library_is_believed(made, tmp_path, monkeypatch):
    """A package may leave it out."""
    monkeypatch.setattr(library, "SOURCE", tmp_path / "kernel.cpp")
    assert load(Path(shutil.copy(made, tmp_path / "believed.so"))).kernel_new


@pytest.mark.parametrize("content", [b"", b"text", b"\x7fELF" + bytes(200)])
def test_what_is_no_library_is_not_loaded(tmp_path, content):
    """Half a file after a power failure, say."""
    path = tmp_path / "kernel.so"
    path.write_bytes(content)
    with pytest.raises(NoKernelError, match=r"kernel\.so cannot be loaded: .*kernel\.build builds it anew"):
        load(path)


def test_a_library_of_somebody_else_is_not_loaded(tmp_path):
    """It is asked what it was built from."""
    with Path("/proc/self/maps").open() as maps:
        libc = next(line.split()[-1] for line in maps if "/libc.so" in line or "/libc-" in line)
    path = Path(shutil.copy(libc, tmp_path / "kernel.so"))
    with pytest.raises(NoKernelError, match="kernel_source"):
        load(path)


def test_where_nothing_was_built_the_reason_says_how_to(tmp_path):
    """Somebody may install a compiler later."""
    with pytest.raises(NoKernelError, match=r"not built; python -m collector\.decoder\.kernel\.build"):
        load(tmp_path / "kernel.so")


def test_a_collector_with_an_unusable_library_decodes_and_says_why(tmp_path):
    """``decoder.plain`` has the reason, the part says what decoded it."""
    shutil.copytree(
        PACKAGE, tmp_path / "collector", ignore=shutil.ignore_patterns("__pycache__", "kernel.so")
    )
    (tmp_path / "collector/decoder/kernel/kernel.so").write_text("no library")
    (tmp_path / "hits.jsonl").write_text('{"hitIdHigh":1,"hitIdLow":2}\n')
    done = subprocess.run(
        [sys.executable, "-m", "collector", "decode", "hits.jsonl", "--output", "out"],
        cwd=tmp_path,
        env={**os.environ, "LIVESTREAM_LOG__FORMAT": "json", "LIVESTREAM_RUN__DECODERS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines()]
    (plain,) = (event for event in events if event["event"] == "decoder.plain")
    assert "kernel.so cannot be loaded" in plain["reason"]
    (part,) = (tmp_path / "out/hits").rglob("*.parquet")
    assert pq.read_schema(part).metadata[b"collector.decoder"] == b"plain"
