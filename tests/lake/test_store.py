"""Stores: a part is whole under its name or not there, and nothing is ever replaced."""

from __future__ import annotations

import hashlib
import os

import obstore
import pytest
from store_rig import BUCKET, S3, free_port

from collector.core.shipping import ShipFailure
from collector.lake.store import ShipError, Stored, open_store

PATH = "hits/v=1/stream=s/date=2026-11-23/hour=09/part-00112233445566ff-000000000001-000000000002-1.parquet"


@pytest.fixture(params=["s3", "file"])
def store(request, tmp_path):
    if request.param == "file":
        return open_store(f"file://{tmp_path}/elsewhere")
    s3 = request.getfixturevalue("s3")
    return open_store(f"s3://{BUCKET}/raw", endpoint=s3.endpoint, region="us-east-1")


def made(tmp_path, data: bytes):
    source = tmp_path / "part"
    source.write_bytes(data)
    return source, len(data), hashlib.sha256(data).digest()


@pytest.mark.parametrize("size", [10, (16 << 20) + 5], ids=["whole", "in pieces"])
def test_a_part_is_there_as_it_was(store, tmp_path, size):
    """Size and hash are found with it, and its bytes are the same."""
    source, size, sha256 = made(tmp_path, os.urandom(size))
    assert store.find(PATH) is None
    store.put_new(source, PATH, size, sha256)
    assert store.find(PATH) == Stored(size, sha256)
    assert store.read(PATH) == source.read_bytes()


def test_the_same_once_more_is_success(store, tmp_path):
    """So a crash between the upload and its note costs nothing."""
    source, size, sha256 = made(tmp_path, b"whole part")
    store.put_new(source, PATH, size, sha256)
    store.put_new(source, PATH, size, sha256)
    assert store.read(PATH) == b"whole part"


def test_other_content_under_its_name_is_an_error_and_stays(store, tmp_path):
    """Both hashes are named; nothing is overwritten."""
    source, size, sha256 = made(tmp_path, b"theirs, whatever it is")
    store.put_new(source, PATH, size, sha256)
    source, size, ours = made(tmp_path, b"ours")
    with pytest.raises(ShipError, match=f"{sha256.hex()}, expected 4 bytes, sha256 {ours.hex()}") as caught:
        store.put_new(source, PATH, size, ours)
    assert caught.value.failure is ShipFailure.OTHER_CONTENT
    assert store.read(PATH) == b"theirs, whatever it is"


def test_what_somebody_else_put_is_judged_by_its_bytes(s3, tmp_path):
    """Without a recorded hash of ours."""
    source, size, sha256 = made(tmp_path, b"copied by hand")
    obstore.put(s3.store(), f"raw/{PATH}", b"copied by hand")
    store = open_store(f"s3://{BUCKET}/raw", endpoint=s3.endpoint, region="us-east-1")
    assert store.find(PATH) == Stored(size, None)
    store.put_new(source, PATH, size, sha256)
    obstore.put(s3.store(), f"raw/{PATH}", b"copied by fool")
    with pytest.raises(ShipError, match="other content"):
        store.put_new(source, PATH, size, sha256)


def test_keys_that_the_store_does_not_know(s3, tmp_path):
    """The failure says whose fault it is, and holds no secret."""
    s3.refuse_everybody()
    try:
        store = open_store(f"s3://{BUCKET}/raw", endpoint=s3.endpoint, region="us-east-1")
        with pytest.raises(ShipError, match="credentials") as caught:
            store.put_new(*_args(tmp_path))
    finally:
        s3.accept_everybody()
    assert caught.value.failure is ShipFailure.DENIED
    assert "InvalidAccessKeyId" in caught.value.detail
    assert "test-secret-key" not in str(caught.value)


def test_a_bucket_that_is_not_there(s3, tmp_path):
    store = open_store("s3://nowhere/raw", endpoint=s3.endpoint, region="us-east-1")
    with pytest.raises(ShipError) as caught:
        store.put_new(*_args(tmp_path))
    assert caught.value.failure is ShipFailure.NO_BUCKET


def test_a_store_that_does_not_answer(s3, tmp_path):
    store = open_store(f"s3://{BUCKET}/raw", endpoint=S3(free_port()).endpoint, region="us-east-1")
    with pytest.raises(ShipError) as caught:
        store.put_new(*_args(tmp_path))
    assert caught.value.failure is ShipFailure.AWAY


def test_a_folder_shows_whole_parts_only(tmp_path):
    """While it is copied a part is in a folder that engines skip, and is nowhere after a failure."""
    store = open_store(f"file://{tmp_path}/elsewhere")
    with pytest.raises(ShipError):
        store.put_new(tmp_path / "missing", PATH, 3, b"x" * 32)
    shown = [path for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()]
    assert shown == []


def _args(tmp_path):
    source, size, sha256 = made(tmp_path, b"part")
    return source, PATH, size, sha256
