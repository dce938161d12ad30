"""The journal's reader and recovery, fed with bent segments."""

# ruff: noqa: PT017 - a judge looks at both outcomes

from __future__ import annotations

from pathlib import Path

from fuzzing import DISK, Target, bent_files, folder, packed, snapshot, unpacked
from hypothesis import strategies as st

from collector.errors import DamagedError, NewerVersionError
from collector.storage import segments
from collector.storage.journal import JournalReader, recover
from collector.storage.segments import BlockHeader, pack_block, segment_name

SIZE_BYTES = 8192
SALTS = (b"salt of segment1", b"salt of segment2", b"salt of segment3")
AFTER_SEQ = 1
"""Block 1 is committed."""


def payload_of(seq: int) -> bytes:
    return b"".join(b'{"pageName":"block %d, line %d"}\n' % (seq, line) for line in range(seq % 3 + 1))


def block(
    seq: int,
    salt: bytes,
    payload: bytes | None = None,
    *,
    length: int | None = None,
    records: int = 1,
    flags: int = 0,
    synced_seq: int = 0,
) -> bytes:
    payload = payload_of(seq) if payload is None else payload
    header = BlockHeader(
        seq,
        1,
        flags,
        len(payload) if length is None else length,
        records,
        1_795_000_000_000_000,
        5,
        synced_seq,
    )
    packed_header = pack_block(header, payload, segments.salt_crc(salt))
    return packed_header + payload + bytes(-len(payload) % 8)


def segment(number: int, salt: bytes, *blocks: bytes) -> tuple[str, bytes]:
    header = segments._pack_header(number, salt, SIZE_BYTES)
    return segment_name(number), (header + b"".join(blocks)).ljust(SIZE_BYTES, b"\0")


def journal(synced: int) -> bytes:
    """Six blocks in three segments, each sealed when those ``synced`` before were durable; a free one."""
    first, second, third = SALTS
    blocks = {seq: max(0, seq - synced) for seq in range(1, 7)}
    return packed(
        [
            segment(1, first, *(block(seq, first, synced_seq=blocks[seq]) for seq in (1, 2, 3))),
            segment(2, second, *(block(seq, second, synced_seq=blocks[seq]) for seq in (4, 5))),
            segment(3, third, block(6, third, synced_seq=blocks[6])),
            (f"free-{segment_name(4)}", segment(4, third, block(1, third))[1]),
        ]
    )


NAMES = st.one_of(
    st.integers(0, 6).map(segment_name),
    st.integers(0, 6).map(lambda number: f"free-{segment_name(number)}"),
    st.sampled_from(["x", "000000000000000١.segment", "1.segment", "free-1.segment", "9" * 16 + ".segment"]),
)


@st.composite
def crafted(draw: st.DrawFn) -> bytes:
    """Segments whose checksums are all right and whose numbers are anything."""
    number = st.integers(0, 2**64 - 1) | st.integers(0, 8)
    files = []
    for at in range(draw(st.integers(1, 3))):
        salt = draw(st.sampled_from(SALTS))
        blocks = [
            block(
                draw(st.integers(0, 8) | number),
                salt,
                length=draw(st.none() | st.sampled_from([0, 1, 4000, 2**32 - 1])),
                records=draw(st.sampled_from([0, 1, 2**32 - 1])),
                flags=draw(st.sampled_from([0, 1, 2, 0xFFFF])),
                synced_seq=draw(number),
            )
            for _ in range(draw(st.integers(0, 4)))
        ]
        files.append(segment(at + 1, salt, *blocks))
    return packed(files)


def judge(data: bytes) -> None:
    files = [
        (name, content) for name, content in unpacked(data) if name and "/" not in name and "\0" not in name
    ]
    with folder() as root:
        place, quarantine = root / "journal", root / "quarantine"
        place.mkdir()
        quarantine.mkdir()
        for name, content in files:
            if len(name.encode()) < 200:
                (place / name).write_bytes(content)
        before = snapshot(root)
        try:
            found = recover(DISK, place, quarantine, after_seq=AFTER_SEQ)
        except (DamagedError, NewerVersionError) as error:
            assert str(root) in str(error) or "no segment is left" in str(error)
            assert snapshot(root) == before, "a refusal changes nothing"
            return
        _check(place, quarantine, found, dict(files))


def _check(place: Path, quarantine: Path, found, given: dict[str, bytes]) -> None:
    assert [block.seq for block in found.blocks] == list(range(AFTER_SEQ + 1, found.next_seq))
    reader = JournalReader(place, DISK)
    for one in found.blocks:
        view = reader.payload(one)
        assert len(view) == one.length
        where = given[segment_name(one.segment)]
        assert view == where[one.offset : one.offset + one.length], "what was recovered is what was there"
        view.release()
    assert all(number < found.next_segment for number in (*found.last_block, *found.free))
    again = recover(DISK, place, quarantine, after_seq=AFTER_SEQ)
    assert again.blocks == found.blocks
    assert again.cut is None, "a second recovery finds nothing left to do"


SEEDS = {
    "all-synced": journal(1),
    "nothing-synced": journal(9),
    "some-synced": journal(3),
    "one-empty-segment": packed([segment(1, SALTS[0])]),
    "no-segment": packed([]),
}
TARGETS = [Target("journal", judge, SEEDS, bent_files(list(SEEDS.values()), NAMES) | crafted(), everyday=300)]
