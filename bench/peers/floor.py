"""The floor under every design: the fastest inflate, and finished columns encoded as the collector's Parquet.

The decoding between the two is done before the clock starts. What is left, any way from gzip to such a
file has to do as well.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from isal import igzip, igzip_lib

from bench.peers.contest import compete
from collector.core.messages import Block, BlockFlag
from collector.decoder.decode import decode_block
from collector.decoder.partfile import part_writer
from collector.decoder.schema import HITS_SCHEMA
from collector.reader.inflate import PIECE_BYTES


def convert(source: Path, target: Path) -> None:
    for _ in _pieces(source):
        pass
    with open(target, "wb") as file, part_writer(file, HITS_SCHEMA) as writer:
        table = columns(source)
        writer.write_table(table, row_group_size=table.num_rows)


def _pieces(source: Path) -> Iterator[bytes]:
    """Of the text, each in memory only until the next."""
    member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    yield member.decompress(source.read_bytes(), PIECE_BYTES)
    while not member.eof:
        yield member.decompress(b"", PIECE_BYTES)


@functools.cache
def columns(source: Path) -> pa.Table:
    """What the collector would write of these hits."""
    with igzip.open(source) as file:
        text = file.read()
    block = Block(
        seq=1,
        segment=1,
        offset=0,
        length=len(text),
        records=text.count(b"\n"),
        connection=1,
        flags=BlockFlag.UNBOUNDED,
        collected_at_us=0,
        held_us=0,
    )
    decoded = decode_block(text, block, instance="floor")
    return pa.Table.from_batches(decoded.batches).combine_chunks()


if __name__ == "__main__":
    pa.set_cpu_count(1)
    compete(
        convert,
        settings="isal, and pyarrow with the collector's own writer settings, one row group, one thread",
        lacks="decodes nothing: its columns were made before the clock started",
        prepare=columns,
    )
