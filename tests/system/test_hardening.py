"""Nothing of the collector is open to others, leads elsewhere, or tells what it must keep."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import ROOT, wait_until
from isal.isal_zlib import crc32

from collector.cli import main
from collector.cli.options import ResetValue
from collector.coordinator.stream import RESET_VALUES
from collector.core.entries import BlockCount, Intent, Made, ShareStaged
from collector.core.messages import FileKind, StagedFile, Totals
from collector.errors import ConfigurationError, ExitCode
from collector.ipc.child import forbid_core_dumps
from collector.settings import Purpose, load_settings
from collector.storage.commitlog import CommitLog
from collector.storage.fs import DISK
from collector.storage.layout import StateFolder, memory_journal

CANARY = "canary-token-0123456789"
HIT = b'{"pageName":"one","hitIdHigh":1,"hitIdLow":2}\n'
SUBFOLDERS = ["journal", "staging", "ids", "resends", "quarantine", "retired", "archive"]
NOBODY = 65534


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


@pytest.fixture
def state(output):
    return StateFolder(output / ".state" / "files.files")


@pytest.fixture
def decode(tmp_path, output, capsys):
    """``decode`` of one hit: its exit code and what it said."""
    saved = tmp_path / "hits.jsonl"
    saved.write_bytes(HIT)

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["decode", str(saved), "--output", str(output), "--decoders", "1", *arguments])
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.err

    return run


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(root: Path) -> dict[str, int]:
    """Permission bits by path, of files and folders."""
    paths = [root, *root.rglob("*")]
    return {
        str(path.relative_to(root)): path.lstat().st_mode & 0o777 for path in paths if not path.is_symlink()
    }


# ---------------------------------------------------------------- modes and secrets, in real processes


@pytest.mark.parametrize(("mask", "durability"), [(0o000, "memory"), (0o077, "disk")])
def test_modes_are_what_they_should_be_whatever_the_umask(make_service, make_collector, mask, durability):
    """State 0700 and 0600, the journal in memory too, output as set; no secret and no core in any process."""
    collector = make_collector(
        make_service(total=300, token=CANARY),
        **{"output.mode": "0640", "journal.durability": durability, "journal.segment_bytes": 1 << 20},
    )
    environment = {"LIVESTREAM_TOKEN": CANARY, "LIVESTREAM_CLIENT_ID": "simulator-key"}
    with umask(mask):
        collector.start("--set", "log.level=debug", environment=environment)
    wait_until(lambda: collector.rows() or collector.process.poll() is not None, "rows or a refusal")
    _look_at_processes([collector.process.pid, *collector.children().values()], collector.process.pid)
    folders = [collector.state]
    if durability == "memory":
        folders += [memory_journal(collector.ledger().instance)]
    for folder in folders:
        found = modes(folder)
        assert len(found) > 1
        wrong = {name: oct(mode) for name, mode in found.items() if mode not in {0o700, 0o600}}
        assert not wrong
        assert all((folder / name).is_dir() == (mode == 0o700) for name, mode in found.items())
    collector.drain()
    assert CANARY not in collector.log
    for path in collector.folder.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path
    visible = {name: mode for name, mode in modes(collector.output).items() if not name.startswith(".state")}
    assert visible.pop(".") == 0o755
    parts = {mode for name, mode in visible.items() if name.endswith(".parquet")}
    assert parts <= {0o640}
    assert {mode for name, mode in visible.items() if not name.endswith(".parquet")} <= {0o750}


def _look_at_processes(pids: list[int], coordinator: int) -> None:
    assert len(pids) > 1
    for pid in pids:
        process = Path(f"/proc/{pid}")
        core = next(line for line in (process / "limits").read_text().splitlines() if "core file" in line)
        assert core.split()[4:6] == ["0", "0"]
        assert CANARY.encode() not in (process / "cmdline").read_bytes()
        if pid != coordinator:  # its own is what it was given
            assert CANARY.encode() not in (process / "environ").read_bytes()


# ---------------------------------------------------------------- folders that are not ours alone


@pytest.mark.parametrize("name", SUBFOLDERS)
def test_a_state_subfolder_is_no_link(decode, state, tmp_path, name):
    """Exit code 2, and nothing is written where it leads."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    state.root.mkdir(parents=True, mode=0o700)
    (state.root / name).symlink_to(elsewhere)
    code, said = decode()
    assert code == ExitCode.CONFIGURATION
    assert f"{state.root / name} must be a folder, no symbolic link" in said
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("name", ["commit.log", "floor", "lock", "children", "commit.log.acknowledged"])
def test_a_file_of_the_state_is_no_link(decode, state, tmp_path, name):
    """Exit code 4, and the file it leads to stays as it is."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    state.root.mkdir(parents=True, mode=0o700)
    (state.root / name).symlink_to(victim)
    code, said = decode()
    assert code == ExitCode.STORAGE
    assert name in said
    assert victim.read_bytes() == b"precious"
    assert victim.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("kind", ["hits", "rejects", "connections"])
def test_a_folder_of_parts_is_no_link_but_the_output_may_be(decode, output, tmp_path, kind):
    """Where the output is, is the operator's choice; what is in it, the collector's."""
    real = tmp_path / "real"
    real.mkdir()
    output.symlink_to(real)
    (real / kind).symlink_to(tmp_path)
    code, said = decode()
    assert code == ExitCode.CONFIGURATION
    assert f"{output / kind} is a symbolic link" in said
    (real / kind).unlink()
    if kind == "hits":
        assert decode()[0] == ExitCode.DONE
        assert list(real.rglob("*.parquet"))


def test_an_empty_state_folder_is_closed_to_others(decode, state):
    """As service managers and operators make it: its own, and open."""
    state.root.mkdir(parents=True)
    state.root.chmod(0o777)
    assert decode()[0] == ExitCode.DONE
    assert state.root.stat().st_mode & 0o777 == 0o700
    (state.root / "ids").chmod(0o755)
    state.root.chmod(0o755)
    assert decode()[0] == ExitCode.DONE
    assert set(modes(state.root).values()) == {0o700, 0o600}


def test_a_folder_with_other_things_in_it_is_no_state_folder(decode, tmp_path):
    """Nobody's home is closed by a slip of the hand."""
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    (home / "letter").write_text("mine")
    code, said = decode("--state", str(home))
    assert code == ExitCode.CONFIGURATION
    assert "give --state a folder of its own" in said
    assert home.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in home.iterdir()] == ["letter"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("name", ["", "journal"])
def test_another_users_state_folder_is_refused(decode, state, name):
    """Who owns it can change it below us."""
    folder = state.root / name
    folder.mkdir(parents=True, mode=0o700)
    state.root.chmod(0o700)
    os.chown(folder, NOBODY, NOBODY)
    code, said = decode()
    assert code == ExitCode.CONFIGURATION
    assert f"{folder} belongs to user {NOBODY}" in said


def test_a_journal_in_memory_that_leads_elsewhere_is_refused(decode, state, tmp_path):
    """Its place is open to every user, and its name is in the names of parts."""
    assert decode()[0] == ExitCode.DONE
    journal = memory_journal(_instance(state))
    journal.symlink_to(tmp_path)
    try:
        code, said = decode()
    finally:
        journal.unlink()
    assert code == ExitCode.CONFIGURATION
    assert str(journal) in said


def _instance(state: StateFolder) -> str:
    log = CommitLog.open(DISK, state.commit_log)
    try:
        return next(entry.instance for _, entry in log.entries() if isinstance(entry, Made))
    finally:
        log.close()


# ---------------------------------------------------------------- a commit log that somebody made


def _log(*entries) -> bytes:
    """Every check of the log's own is right."""
    with_folder = Path("/dev/shm") / f"hardening-{os.getpid()}"
    with_folder.mkdir()
    try:
        log = CommitLog.open(DISK, with_folder / "commit.log")
        for entry in entries:
            log.append(entry)
        log.close()
        return (with_folder / "commit.log").read_bytes()
    finally:
        shutil.rmtree(with_folder)


def _replaced(log: bytes, old: bytes, new: bytes) -> bytes:
    """With the checksums right again."""
    assert len(old) == len(new)
    assert log.count(old) == 1
    log = log.replace(old, new)
    out, at = bytearray(log[:16]), 16
    while at < len(log):
        length = log[at : at + 4]
        payload = log[at + 8 : at + 8 + int.from_bytes(length, "little")]
        out += length + crc32(payload, crc32(length)).to_bytes(4, "little") + payload
        at += 8 + len(payload)
    return bytes(out)


MADE = Made("0123456789abcdef", "files", "", 1)
FILE = StagedFile(
    FileKind.HITS, "xxxxxxxxxxxxxxxx", "hits/yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy", 4, bytes(32), 1
)
PENDING = Intent(
    1, 1, (ShareStaged(1, 1, 0, 0, (FILE,)),), (BlockCount(1, 1, 1, 1, 0, 0, 1),), Totals(), (0, 0)
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (FILE.final.encode(), b"hits/../../../zzzzzzzzzzzzzzzzzzzzzzzzz"),
        (FILE.staged.encode(), b"../../../../../x"),
        (MADE.instance.encode(), b"../../../../../x"),
    ],
)
def test_a_crafted_log_moves_nothing_out_of_the_output(decode, state, tmp_path, old, new):
    """Exit code 4; every file stays where it is."""
    state.staging.mkdir(parents=True)
    state.root.chmod(0o700)
    (state.staging / FILE.staged).write_bytes(b"part")
    crafted = _replaced(_log(MADE, PENDING), old, new)
    state.commit_log.write_bytes(crafted)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    code, said = decode()
    assert code == ExitCode.STORAGE
    assert "commit.log" in said or "commit log" in said
    after = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.name for path in after - before} <= {"lock", "children", "commit.log.acknowledged"}
    assert before <= after
    assert state.commit_log.read_bytes() == crafted


# ---------------------------------------------------------------- names and sizes from people


@pytest.mark.parametrize(
    ("state_folder", "output_folder"),
    [("output/hits/x", "output"), ("link/x", "output"), ("output", "output"), ("state", "state/output")],
)
def test_state_and_output_do_not_lie_within_each_other(tmp_path, state_folder, output_folder):
    """By their names and by where these lead: readers would take one for the other's data."""
    (tmp_path / "output" / "hits").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "output" / "hits")
    options = {
        "output.folder": str(tmp_path / output_folder),
        "state.folder": str(tmp_path / state_folder),
        "stream.name": "web",
    }
    with pytest.raises(ConfigurationError, match=r"state\.folder"):
        load_settings(Purpose.DECODE, options=options)


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[31mb", "\udcff", "x" * 5000])
def test_folders_have_names_that_can_be_shown(decode, tmp_path, text):
    """They stand in log lines, and children get them as arguments."""
    code, said = decode("--state", str(tmp_path / text) if len(text) < 100 else f"/{text}")
    assert code == ExitCode.CONFIGURATION
    assert said.rstrip("\n").isprintable()


def test_a_stored_reset_is_one_of_four_words():
    """Whatever else is in the file goes into no request."""
    assert set(RESET_VALUES) == {value.value for value in ResetValue}


# ---------------------------------------------------------------- what a process tells when it dies


def _python(program: str, **more) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


SECRET_IN_ERROR = f"""
from collector.credentials import Secret
token = Secret("{CANARY}")
def fail(**_):
    try:
        raise ValueError("https://host/x?access_token={CANARY}")
    except ValueError as error:
        raise RuntimeError("\\x1b[31m red {CANARY}") from error
"""
COORDINATOR = (
    SECRET_IN_ERROR
    + """
import sys, types
from collector.cli import main
module = sys.modules["collector.commands.demo"] = types.ModuleType("x")
module.run = fail
main(["demo"])
"""
)
CHILD = (
    SECRET_IN_ERROR
    + """
import os
from collector.ipc.child import become_child
become_child(os.getppid())
fail()
"""
)


LIBRARY = (
    SECRET_IN_ERROR
    + """
import asyncio, gc
from collector import telemetry
from collector.commands.run import on_loop
telemetry.configure(form="json")
async def main():
    async def task():
        fail()
    asyncio.ensure_future(task())
    await asyncio.sleep(0)
    gc.collect()
on_loop(main())
"""
)


def test_what_libraries_log_is_masked_and_one_line():
    """A task that nobody waited for, as asyncio tells it."""
    _, said = _python(LIBRARY).communicate()
    assert CANARY not in said
    (line,) = said.splitlines()
    event = json.loads(line)
    assert (event["event"], event["name"]) == ("library.warned", "asyncio")
    assert "Task exception was never retrieved" in event["reason"]


@pytest.mark.parametrize("program", [COORDINATOR, CHILD], ids=["coordinator", "child"])
def test_a_defects_traceback_holds_no_secret(program):
    """Neither of its own message nor of what caused it; exit code 1, and all that is needed to find it."""
    process = _python(program)
    _, said = process.communicate()
    assert process.returncode == ExitCode.DEFECT
    assert CANARY not in said
    assert "\x1b" not in said
    assert "RuntimeError: \\x1b[31m red ***" in said
    assert "access_token=***" in said
    assert 'File "<string>"' in said


AS_ORDINARY_USER = f"""
import ctypes, os
if os.geteuid() == 0:
    os.setgid({NOBODY})
    os.setuid({NOBODY})
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: a change of user undid it
"""
HOLDER = f"""
from collector.ipc.child import forbid_core_dumps
{AS_ORDINARY_USER}
print("open", flush=True)
input()
forbid_core_dumps()
print("closed", flush=True)
input()
"""


def test_no_other_process_of_the_user_reads_what_the_coordinator_holds():
    """Its environment and its memory are its own once it is not dumpable."""
    with _python(HOLDER, env={**os.environ, "LIVESTREAM_TOKEN": CANARY}) as holder:
        assert holder.stdout.readline() == "open\n"
        seen, _ = _looked_at(holder.pid)
        assert CANARY in seen
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "closed\n"
        seen, said = _looked_at(holder.pid)
        assert CANARY not in seen
        assert "PermissionError" in said
        holder.stdin.close()


def _looked_at(pid: int) -> tuple[str, str]:
    with _python(f"{AS_ORDINARY_USER}print(open('/proc/{pid}/environ', 'rb').read())") as process:
        return process.communicate()


def test_forbidding_core_dumps_is_felt_by_the_kernel():
    """core(5): a process that is not dumpable is never dumped, not through a pipe either."""
    pid = os.fork()
    if pid == 0:
        forbid_core_dumps()
        os._exit(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
