"""The support bundle: what is in it, what is not, and that it is made whatever state the folders are in."""

from __future__ import annotations

import gzip
import json
import os
import stat
import tarfile
from pathlib import Path

import pytest

from collector.commands import bundle
from collector.commands.bundle import SECTIONS, Section, run
from collector.core.messages import FileKind
from collector.errors import ConfigurationError, DamagedError
from collector.settings import Loaded, Purpose, load_with_sources
from collector.storage.layout import StateFolder
from tests.storage.collected_rig import STREAM, Collected, make_collected

NAMES = ["README.txt", *(section.name for section in SECTIONS)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Collected:
    return make_collected(tmp_path_factory.mktemp("whole") / "c")


@pytest.fixture
def collected(whole, tmp_path) -> Collected:
    return whole.copy_to(tmp_path / "c")


def load(collected: Collected, **environ: str) -> Loaded:
    options = {"output.folder": str(collected.output), "stream.name": STREAM}
    return load_with_sources(Purpose.STATE, environ=environ, options=options)


def texts_in(file: Path) -> dict[str, str]:
    with tarfile.open(file) as tar:
        members = tar.getmembers()
        assert all(member.isfile() and member.mode == 0o600 and not member.uid for member in members)
        read = {member.name: tar.extractfile(member).read().decode() for member in members}
    assert [name.removeprefix("livestream-bundle/") for name in read] == NAMES
    return {name.removeprefix("livestream-bundle/"): text for name, text in read.items()}


def made(collected: Collected, tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "bundle.tar.gz"
    assert run(load(collected), {}, file) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    return texts_in(file)


def test_it_tells_what_is_there(collected, tmp_path, capsys):
    """Every section has its file, and its facts: of the log, the folders, the program, the machine."""
    texts = made(collected, tmp_path)
    log = texts["commit-log.txt"]
    assert f"entries 1 to {len(collected.entries())}" in log
    assert "Intent batch=1 last=3 shares=[2] blocks=[3] before=(records=0" in log
    assert "outcome='lost' detail='cut'" in log
    parts = collected.files(FileKind.HITS)
    assert f"{parts[0].final.rpartition('/')[0]}: " in texts["output-folder.txt"]
    assert "drwx------" in texts["state-folder.txt"].splitlines()[0]
    assert "pyarrow " in texts["versions.txt"]
    assert "libcurl/" in texts["versions.txt"]
    assert "MemTotal" in texts["host.txt"]
    assert json.loads(texts["status.json"])["running"] is False
    assert all(section.holds in texts["README.txt"] for section in SECTIONS)
    assert "Could not be made" not in "".join(texts.values())
    assert "10 files, no hit and no secret" in capsys.readouterr().out


def test_nothing_of_a_hit_is_in_it(collected, tmp_path):
    """Nor of rejects, resends or ids."""
    texts = "".join(made(collected, tmp_path).values())
    assert not [word for word in ("pageName", "page 3", str(2**63 + 3)) if word in texts]


@pytest.mark.parametrize("byte", [5, 40, 400, -3])
def test_of_a_damaged_log_it_tells_what_can_be_read(collected, tmp_path, byte):
    """And where the damage is; the other sections are as ever."""
    data = bytearray(collected.state.commit_log.read_bytes())
    data[byte] ^= 0xFF
    collected.state.commit_log.write_bytes(data)
    texts = made(collected, tmp_path)
    assert "DAMAGED" in texts["commit-log.txt"]
    assert "ConnectionOpened" in texts["commit-log.txt"]
    assert "drwx" in texts["output-folder.txt"]


@pytest.mark.parametrize("what", ["commit.log", "floor", "archive", "."])
def test_what_cannot_be_looked_at_says_so(collected, tmp_path, what):
    """A folder in a file's place, or nothing at all: a bundle is made, of all the rest."""
    path = collected.state.root / what
    if what == ".":
        os.rename(collected.state.root, tmp_path / "away")
    else:
        path.unlink(missing_ok=True)
        (path / "x" if what != "archive" else tmp_path / "y").mkdir(parents=True)
        if what == "archive":
            path.write_bytes(b"a file")
    texts = made(collected, tmp_path)
    assert "hits/v=1" in texts["output-folder.txt"]


def test_a_section_that_fails_does_not_take_the_others_with_it(collected, tmp_path, monkeypatch, capsys):
    """Neither with an error of ours nor with a defect; README.txt and the terminal name them."""

    def fails(_: object) -> str:
        raise DamagedError("bytes 3 to 4 are damaged")

    def breaks(_: object) -> str:
        raise ZeroDivisionError("canary")

    sections = [Section("a.txt", "a", fails), Section("b.txt", "b", breaks), SECTIONS[-1]]
    monkeypatch.setattr(bundle, "SECTIONS", sections)
    file = tmp_path / "bundle.tar.gz"
    assert run(load(collected), {}, file) == 0
    with tarfile.open(file) as tar:
        read = {
            member.name.partition("/")[2]: tar.extractfile(member).read().decode()
            for member in tar.getmembers()
        }
    assert read["a.txt"] == "This could not be made: bytes 3 to 4 are damaged\n"
    assert "ZeroDivisionError: canary" in read["b.txt"]
    assert "Memory:" in read["host.txt"]
    assert "Could not be made, and say why: a.txt, b.txt" in read["README.txt"]
    assert "a.txt, b.txt" in capsys.readouterr().out


def test_no_file_is_ever_replaced(collected, tmp_path):
    """A second bundle of the same name is refused, a symbolic link is not followed."""
    there = tmp_path / "there.tar.gz"
    there.write_bytes(b"somebody's")
    link = tmp_path / "link.tar.gz"
    link.symlink_to(tmp_path / "nowhere")
    for file in (there, link):
        with pytest.raises(ConfigurationError, match="is there already"):
            run(load(collected), {}, file)
    assert there.read_bytes() == b"somebody's"
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(ConfigurationError, match="is no folder"):
        run(load(collected), {}, tmp_path / "nowhere" / "x")


def test_it_never_comes_among_the_parts(collected, tmp_path, monkeypatch):
    """Whichever way the folder is named; engines would take it for data."""
    (tmp_path / "link").symlink_to(collected.output)
    state = StateFolder(collected.state.root)
    for place in (collected.output, collected.output / "hits", tmp_path / "link", state.root):
        with pytest.raises(ConfigurationError, match="give -o a file elsewhere"):
            run(load(collected), {}, place / "bundle.tar.gz")
    monkeypatch.chdir(collected.output)
    with pytest.raises(ConfigurationError, match="give -o a file elsewhere"):
        run(load(collected), {}, None)
    assert not list(collected.output.rglob("*.gz"))


def test_without_a_name_it_is_a_new_file_here(collected, tmp_path, monkeypatch, capsys):
    """Named by stream and time."""
    monkeypatch.chdir(tmp_path)
    assert run(load(collected), {}, None) == 0
    (file,) = tmp_path.glob("livestream-bundle-shop-*Z.tar.gz")
    assert capsys.readouterr().out.startswith(f"{file.name}: ")
    assert gzip.decompress(file.read_bytes())
