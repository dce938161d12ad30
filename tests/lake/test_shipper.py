"""Shipping: what the log calls committed goes out once, whole, in order; a crash anywhere changes nothing."""

from __future__ import annotations

import msgspec
import pytest
from collected_rig import COLLECTED_AT_US, Collected, hit, make_collected
from faulty_disk import Crashed
from lake_rig import Dying, Shipped

from collector.core.entries import Note, Retired, RetiredFile
from collector.core.messages import FileKind
from collector.core.shipping import ShipFailure
from collector.lake.store import ShipError
from collector.storage.fs import DISK
from collector.storage.retired import read_retired, retired_records
from collector.storage.shipped import read_progress


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Collected:
    return make_collected(tmp_path_factory.mktemp("collected"))


@pytest.fixture
def shipped(made, tmp_path) -> Shipped:
    return Shipped.of(made.copy_to(tmp_path / "collected"), f"file://{tmp_path}/store")


def test_every_committed_part_goes_out(shipped):
    """Hits, rejects and connections under their final names, byte for byte; ids and resends stay."""
    shipper = shipped.ship()
    assert shipped.shipped_files() == shipped.committed_files()
    assert shipped.collected.found() == []
    report = shipper.report()
    assert (report.parts, report.behind_parts, report.oldest_us) == (len(shipped.committed_files()), 0, 0)


def test_a_second_run_has_nothing_to_do(shipped):
    """It knows from its progress, not from what it finds; what is new goes out."""
    shipped.ship()
    for path in shipped.root.rglob("*.parquet"):
        path.unlink()
    assert not shipped.ship().step()
    assert shipped.shipped_files() == {}
    shipped.collected.commit([hit(4000)], connection=3)
    shipped.ship()
    assert set(shipped.shipped_files()) == {shipped.collected.files(FileKind.HITS)[-1].final}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_step_changes_nothing(made, tmp_path, after):
    """Before and after each upload, note, retired record and removal: the next run ends the same."""
    at, done = 0, False
    while not done:
        at += 1
        shipped = Shipped.of(
            made.copy_to(tmp_path / f"{at}"), f"file://{tmp_path}/{at}-store", keep_local_s=60.0
        )
        dying = Dying(at, after=after)
        try:
            shipped.ship(dying)
            done = True
        except Crashed:
            shipped.ship()
        assert shipped.shipped_files() == shipped.committed_files()
        assert not list((shipped.collected.output / "hits").rglob("*.parquet"))
        assert shipped.collected.found() == []
    assert at > 2 * len(shipped.committed_files())


def test_local_copies_stay_for_their_time(shipped):
    """Then each has a record of where it is now, and ``verify`` finds nothing missing."""
    shipped = shipped.with_plan(keep_local_s=60.0)
    shipped.now_us = COLLECTED_AT_US + 59_000_000
    shipped.ship()
    assert len(list(shipped.collected.output.glob("hits/**/*.parquet"))) > 0
    shipped.now_us = COLLECTED_AT_US + 61_000_000
    shipper = shipped.ship()
    assert list(shipped.collected.output.glob("*/v=1/**/*.parquet")) == []
    records = [read_retired(DISK, path, 0) for path in retired_records(DISK, shipped.collected.state)]
    said = {
        file.path: uri
        for record in records
        for file, uri in zip(record.files, record.replaced_by, strict=True)
    }
    assert said == {path: f"{shipped.plan.url}/{path}" for path in shipped.committed_files()}
    assert {record.reason for record in records} == {"shipped"}
    assert shipper.report().removed_parts == len(said)
    assert shipped.collected.found() == []


def test_removal_may_be_asked_for_later(shipped):
    """Parts that were shipped while local copies were kept go, too."""
    shipped.ship()
    shipped.with_plan(keep_local_s=0.0).ship()
    assert list(shipped.collected.output.glob("*/v=1/**/*.parquet")) == []


def test_another_store_gets_everything(shipped, tmp_path):
    """What is still here: the note is about one address."""
    shipped.ship()
    other = shipped.with_plan(url=f"file://{tmp_path}/other")
    other.ship()
    assert other.shipped_files() == other.committed_files()


def test_what_was_taken_away_before_is_left_out_and_said(shipped):
    """By a record in the log; it goes on with the rest."""
    file = shipped.collected.files(FileKind.HITS)[0]
    shipped.collected.append(Retired((RetiredFile(file.final, file.sha256),), "too old", (), 1))
    shipped.collected.path(file).unlink()
    shipped.ship()
    assert set(shipped.committed_files()) - set(shipped.shipped_files()) == {file.final}
    assert shipped.said == [("ship.left_out", {"parts": 1, "path": file.final, "reason": "too old"})]


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_part_that_is_not_as_committed_holds_what_follows(shipped, damage):
    """It is never shipped, nothing overtakes it, and put back from a copy it goes on."""
    file = shipped.collected.files(FileKind.HITS)[0]
    path = shipped.collected.path(file)
    whole = path.read_bytes()
    path.unlink()
    if damage == "changed":
        path.write_bytes(whole[:-1] + b"?")
    with pytest.raises(ShipError) as caught:
        shipped.ship()
    assert caught.value.failure is ShipFailure.LOCAL
    assert read_progress(DISK, shipped.collected.state) is None
    path.write_bytes(whole)
    shipped.ship()
    assert shipped.shipped_files() == shipped.committed_files()


def test_a_log_that_was_made_again_is_begun_from_its_beginning(shipped):
    """Its numbers mean something else now; what is out is found there, and not doubled."""
    shipped.ship()
    shipped.collected.rewrite_log(lambda entries: entries.insert(1, Note("made", "again")))
    shipped.ship()
    assert shipped.events()["ship.began_again"] == 1


def test_a_batch_that_is_only_decided_stays(shipped):
    """Until COMMITTED is in the log."""
    before = shipped.committed_files()
    intent = shipped.collected.decide([hit(5000)], connection=3)
    shipped.collected.publish(intent)
    shipped.ship()
    assert set(shipped.shipped_files()) == set(before)


def test_the_note_is_one_that_a_person_can_read(shipped):
    """JSON, with totals for life that a change of store does not reset."""
    shipped.ship()
    found = msgspec.json.decode((shipped.collected.state.root / "ship" / "progress").read_bytes())
    assert found["url"] == shipped.plan.url
    assert found["parts"] == len(shipped.committed_files())
