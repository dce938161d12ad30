from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest
from faulty_disk import NO_SPACE, Crashed, FaultyDisk

from collector.core.messages import FileKind, StagedFile
from collector.errors import NoSpaceError
from collector.storage.fs import DISK, Disk
from collector.storage.layout import StateFolder
from collector.storage.publish import NotAsDecidedError, folder_mode, publish


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "out" / ".state" / "shop")
    folder.make(DISK)
    return folder


def output_of(state: StateFolder) -> Path:
    return state.root.parent.parent


def staged(state: StateFolder, name: str, kind: FileKind, final: str) -> StagedFile:
    content = name.encode() * 10
    (state.staging / name).write_bytes(content)
    return StagedFile(kind, name, final, len(content), hashlib.sha256(content).digest(), 1)


def three(state: StateFolder) -> list[StagedFile]:
    return [
        staged(state, "a", FileKind.HITS, "hits/v=1/stream=shop/date=2026-03-01/hour=05/part-a.parquet"),
        staged(state, "b", FileKind.REJECTS, "rejects/v=1/stream=shop/date=2026-03-01/part-b.parquet"),
        staged(state, "c", FileKind.IDS, "ids/c.run"),
    ]


def go(state: StateFolder, files: list[StagedFile], *, disk: Disk = DISK, redo: bool = False) -> None:
    publish(disk, state, output_of(state), files, redo=redo)


def in_place(state: StateFolder, files: list[StagedFile]) -> bool:
    roots = {FileKind.IDS: state.root}
    paths = [roots.get(file.kind, output_of(state)) / file.final for file in files]
    whole = all(
        hashlib.sha256(path.read_bytes()).digest() == f.sha256 for path, f in zip(paths, files, strict=True)
    )
    return whole and not os.listdir(state.staging)


def test_files_go_to_the_output_or_to_the_state_folder(state: StateFolder) -> None:
    """By their kind; nothing stays in staging."""
    files = three(state)
    go(state, files)
    assert in_place(state, files)


def test_every_folder_that_got_a_file_is_synced(state: StateFolder) -> None:
    """Without it a power cut could undo the rename of a committed file."""

    class Watching(Disk):
        def fsync_folder(self, path: object) -> None:
            synced.append(os.path.relpath(str(path), output_of(state)))
            super().fsync_folder(path)  # type: ignore[arg-type]

    synced: list[str] = []
    go(state, three(state), disk=Watching())
    assert synced[-3:] == [
        "rejects/v=1/stream=shop/date=2026-03-01",
        "hits/v=1/stream=shop/date=2026-03-01/hour=05",
        ".state/shop/ids",
    ]
    assert {".", "hits", "hits/v=1/stream=shop"} <= set(synced[:-3])
    synced.clear()
    go(state, three(state), disk=Watching(), redo=True)
    assert {".", "hits", "hits/v=1/stream=shop", "rejects", ".state/shop"} <= set(synced)


@pytest.mark.parametrize(
    ("mode", "folders"), [(0o644, 0o755), (0o600, 0o700), (0o640, 0o750), (0o664, 0o775), (0o444, 0o755)]
)
def test_whoever_may_read_a_file_may_enter_its_folder(mode: int, folders: int) -> None:
    """And nobody else."""
    assert folder_mode(mode) == folders


def test_new_folders_have_that_mode(state: StateFolder) -> None:
    """Whatever the umask."""
    publish(DISK, state, output_of(state), three(state), mode=0o640)
    assert stat.S_IMODE((output_of(state) / "hits" / "v=1").stat().st_mode) == 0o750


def test_publishing_again_changes_nothing(state: StateFolder) -> None:
    """Files in place with the same content are fine, staged leftovers of them are removed."""
    files = three(state)
    go(state, files)
    (state.staging / "a").write_bytes(b"a" * 10)
    go(state, files, redo=True)
    assert in_place(state, files)


@pytest.mark.parametrize("redo", [False, True])
def test_another_file_in_the_way_is_never_replaced(state: StateFolder, redo: bool) -> None:
    """The batch cannot be finished; a person has to look."""
    files = three(state)
    target = output_of(state) / files[0].final
    target.parent.mkdir(parents=True)
    target.write_bytes(b"somebody else's")
    with pytest.raises(NotAsDecidedError, match=r"part-a\.parquet is not the file"):
        go(state, files, redo=redo)
    assert target.read_bytes() == b"somebody else's"


def test_a_file_that_is_gone_is_told(state: StateFolder) -> None:
    """Neither staged nor in place."""
    files = three(state)
    (state.staging / "b").unlink()
    with pytest.raises(NotAsDecidedError, match=r"neither .*b nor .*part-b\.parquet exists"):
        go(state, files)


def test_a_staged_file_that_changed_is_not_published_by_a_redo(state: StateFolder) -> None:
    """What was decided is what becomes visible."""
    files = three(state)
    (state.staging / "a").write_bytes(b"b" * 10)
    with pytest.raises(NotAsDecidedError, match="is not the file"):
        go(state, files, redo=True)
    assert not (output_of(state) / "hits").exists() or not list(
        (output_of(state) / "hits").rglob("*.parquet")
    )


def test_any_crash_can_be_redone(state: StateFolder) -> None:
    """The process dies at every disk call; the redo ends with every file in place."""
    for call in range(1, 300):
        files = three(state)
        for folder in ("hits", "rejects"):
            _remove(output_of(state) / folder)
        (state.root / "ids" / "c.run").unlink(missing_ok=True)
        disk = FaultyDisk(call)
        try:
            go(state, files, disk=disk)
        except Crashed:
            go(state, files, disk=FaultyDisk(), redo=True)
        assert in_place(state, files)
        if not disk.fired:
            break
    assert not disk.fired


def test_a_full_disk_is_waited_out(state: StateFolder) -> None:
    """After NoSpaceError at any rename the same call finishes the work."""
    files = three(state)
    disk = FaultyDisk(2, NO_SPACE, only=frozenset({"rename_noreplace"}))
    with pytest.raises(NoSpaceError):
        go(state, files, disk=disk)
    go(state, files, disk=disk)
    assert in_place(state, files)


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    if folder.exists():
        folder.rmdir()
