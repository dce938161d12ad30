"""``verify --remote``: what was shipped is asked for by name, and what is off is named."""

from __future__ import annotations

import obstore
import pytest
from collected_rig import Collected, make_collected
from lake_rig import Shipped
from store_rig import BUCKET

from collector.core.entries import Retired, RetiredFile
from collector.core.messages import FileKind
from collector.lake.proof import verify_remote
from collector.storage.fs import DISK
from tests.unwatched import Unwatched


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Collected:
    return make_collected(tmp_path_factory.mktemp("collected"))


@pytest.fixture
def shipped(made, tmp_path, s3) -> Shipped:
    found = Shipped.of(
        made.copy_to(tmp_path / "collected"), f"s3://{BUCKET}/raw", endpoint=s3.endpoint, region="us-east-1"
    )
    found.ship()
    return found


def proved(shipped, *, read=False):
    report = shipped.collected.verify()
    verify_remote(DISK, shipped.collected.state, shipped.plan, report, read=read, watcher=Unwatched())
    return [str(finding.kind) for finding in report.findings], report.notes


@pytest.mark.parametrize("read", [False, True])
def test_all_of_it_is_there(shipped, read):
    kinds, notes = proved(shipped, read=read)
    assert kinds == []
    assert any(f"{len(shipped.committed_files())} parts looked at" in note for note in notes)


def test_a_part_that_is_gone_and_one_that_is_another(shipped, s3):
    """Both are named, the first also where its local copy was taken away because it was shipped."""
    gone, other = shipped.collected.files(FileKind.HITS)[:2]
    shipped.with_plan(keep_local_s=0.0).ship()
    obstore.delete(s3.store(), f"raw/{gone.final}")
    obstore.put(s3.store(), f"raw/{other.final}", b"x")
    assert proved(shipped)[0] == ["missing-in-store", "other-in-store"]


def test_bytes_that_changed_under_their_hash_are_found_by_reading(shipped, s3):
    """The recorded hash is what we said when we put it; only the bytes say what they are."""
    file = shipped.collected.files(FileKind.HITS)[0]
    attributes = {"sha256": file.sha256.hex()}
    obstore.put(s3.store(), f"raw/{file.final}", b"x" * file.size, attributes=attributes)
    assert proved(shipped)[0] == []
    assert proved(shipped, read=True)[0] == ["other-in-store"]


def test_what_waits_and_what_was_taken_before_are_notes(shipped, s3):
    """Neither is a fault: the one is on this disk, the other was said."""
    file = shipped.collected.files(FileKind.HITS)[0]
    shipped.collected.append(Retired((RetiredFile(file.final, file.sha256),), "too old", (), 1))
    shipped.collected.path(file).unlink()
    obstore.delete(s3.store(), f"raw/{file.final}")
    shipped.collected.connect(9)
    kinds, notes = proved(shipped)
    assert kinds == []
    assert "1 parts are not shipped yet" in notes
    assert "1 parts were taken away before they were shipped" in notes
