"""What stops a start until the operator decides, and what comes of each decision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_rig import Rig
from faults.plan import named
from oracle import Tally

from collector.core.entries import Lost, Void
from collector.storage.fs import DISK
from collector.storage.journal_survey import surveyed


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "rig", settings={"run.decoders": 1})
    yield rig
    rig.close()


@pytest.mark.matrix
def test_a_batch_whose_file_is_gone_is_redone(rig: Rig) -> None:
    """The start stops and names the flag; with it the batch runs again, and everything is there once."""
    rig.add(named("hits published").fault("kill_all", nth=2))
    rig.start()
    rig.ends(-9)
    pending = rig.collector.ledger().pending
    assert pending is not None
    staged = [file.staged for share in pending.shares for file in share.files]
    gone = next(path for name in staged if (path := rig.collector.state / "staging" / name).exists())
    gone.unlink()
    rig.faults.lift(rig.faults.faults[0])
    rig.start()
    rig.ends(4)
    assert f"run --redo-batch {pending.batch}" in rig.collector.log
    rig.start("--redo-batch", str(pending.batch + 1))
    rig.ends(2)
    assert f"the pending batch is {pending.batch}" in rig.collector.log
    rig.start("--redo-batch", str(pending.batch))
    rig.finish()
    assert [entry.batch for _, entry in rig.collector.entries() if isinstance(entry, Void)] == [pending.batch]
    assert len(rig.collector.events("batch.undone")) == 1


@pytest.mark.matrix
def test_a_damaged_block_is_written_off(rig: Rig) -> None:
    """The start stops with file, bytes and block; with the flag the rest is kept, and the loss is a row."""
    rig.add(named("intent appended").fault("kill_all", nth=3))
    rig.start()
    rig.ends(-9)
    journal, ledger = rig.collector.state / "journal", rig.collector.ledger()
    with surveyed(DISK, journal, after_seq=ledger.last_block) as survey:
        victim = survey.kept[0]
        path, offset, seq = victim.segment.path, victim.offset, victim.header.seq
        assert max(at.header.synced_seq for at in survey.kept) >= seq, "a later block proves it durable"
    content = bytearray(path.read_bytes())
    content[offset + 80] ^= 1
    path.write_bytes(content)
    rig.faults.lift(rig.faults.faults[0])
    rig.start()
    rig.ends(4)
    assert f"{path}: block {seq}, which was durable, is damaged" in rig.collector.log
    assert "run --accept-journal-loss" in rig.collector.log
    rig.start("--accept-journal-loss")
    tally = Tally(rig.hits)
    rig.finish(tally=tally)
    (lost,) = [entry for _, entry in rig.collector.entries() if isinstance(entry, Lost)]
    assert (lost.first, lost.last) == (seq, seq)
    (event,) = rig.collector.events("journal.lost")
    assert (event["first"], event["records"]) == (seq, lost.records)
    (row,) = [row for row in tally.connections if row["reason"] == "journal_lost"]
    assert (row["kind"], row["suspected_gap"]) == ("gap", "likely")
