"""Privacy: what is named is in nothing that comes out, whatever shape it was sent in; all else is."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from pathlib import Path

import duckdb
import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from decode_rig import INSTANCE, TWINS, block_of, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from test_share import NONE, ORDER
from twin_rig import agree_rows, sample_lines, simulated_lines

from collector.core.messages import BlockFlag, FileKind, Oversized
from collector.core.privacy import Privacy
from collector.decoder import careful
from collector.decoder.careful import decode_carefully, show_defect_without_words
from collector.decoder.decode import BlockDecoder, Decoded
from collector.decoder.parquet import PartIdentity, Share
from collector.decoder.privacy import Hider
from collector.storage.fs import DISK
from collector.storage.rejects import LeftOut, write_lines

pytestmark = pytest.mark.usefixtures("twin")

CANARY = "canary-7f3a"
KEY = b"0123456789abcdef0123456789abcdef"
DROP = ("ip", "geoDMA", "mcAudiences", "evars.evar5", "props.prop3", "events.event7", "hierarchies.hier1")
HASH = ("userAgent", "mobileAudioSupport", "evars.evar6", "props.site_section")
PRIVACY = Privacy(DROP, HASH, KEY)
C = json.dumps(CANARY)

SHAPES = [
    *(
        f'{{"{name}":{value}}}'
        for name in ("ip", "geoDMA", "mcAudiences", "userAgent", "mobileAudioSupport")
        for value in (C, f"[{C}]", f'{{"a":{C}}}', f'{{"values":[{C}],"delim":44}}', f'[[{{"x":[{C}]}}]]')
    ),
    *(
        f'{{"{name}":{C}}}'
        for name in ("IP", "Ip", "i p", " ip ", "\\u0069p", "i\\u0050", "useragent", "u\\u017feragent")
    ),
    f'{{"ip":1,"ip":{C}}}',
    f'{{"ip":{C},"ip":1}}',
    f'{{"ip":{C},"ip":null}}',
    f'{{"extra":{{"ip":{C}}}}}',
    f'{{"extra":[{{"ip":{C}}}],"ip":{C}}}',
    f'{{"unknown":{{"a":[{{"ip":{C},"b":1}}]}}}}',
    f'{{"unknown":{{"\\u0069p":{C}}}}}',
    f'{{"unknown":{{"x":{{"IP ":{C}}},"x":1}}}}',
    f'{{"unknown":[{{"userAgent":{{"deep":[{C}]}}}}]}}',
    f'{{"unknown":{{"\\ud800":1,"ip":{C}}}}}',
    f'{{"ip":"\\ud800{CANARY}"}}',
    f'{{"userAgent":"\\ud800{CANARY}"}}',
    f'{{"unknown":{{"ip":"\\ud800{CANARY}","y":[1.50]}}}}',
    *(
        f'{{"{field}":{value}}}'
        for field in ("evars", "props")
        for entry in ("evar5", "evar6", "prop3", "site_section", "EVAR5", "prop 3", "\\u0065var5")
        for value in (
            f'{{"{entry}":{C}}}',
            f'{{"{field}":{{"{entry}":{C}}}}}',
            f'{{"{field}":{{"{entry}":[{C}]}}}}',
            f'{{"{field}":{{"{entry}":{C},"{entry}":{C}}},"other":1}}',
            f'[{{"{entry}":{C}}}]',
        )
        if (field == "evars") == ("var" in entry.casefold())
    ),
    f'{{"evars":{C}}}',
    f'{{"evars":[{C}]}}',
    f'{{"evars":{{"evars":{C}}}}}',
    f'{{"evars":{{"evars":[["evar5",{C}]]}}}}',
    f'{{"props":"prop3={CANARY}"}}',
    f'{{"unknown":{{"evars":"evar5={CANARY}"}}}}',
    f'{{"products":[{{"evars":{{"evar5":{C},"evar6":{C},"evar7":"kept"}},"events":{{"event7":[{{"unique":{C}}}]}}}}]}}',
    f'{{"products":[null,{{"evars":{{"evar5":[{C}]}}}},{{"evars":{C}}},{{"ip":{C}}}]}}',
    f'{{"products":[{{"name":"a"}},{{"evars":null}},{{"evars":{{"eVar6":{C}}}}}]}}',
    f'{{"products":{{"evars":{{"evar5":{C}}}}}}}',
    f'{{"events":{{"event7":[{{"count":1,"unique":{C}}}],"event 7":[{{"unique":{C}}}]}}}}',
    f'{{"events":[{{"event7":[{{"unique":{C}}}]}}]}}',
    f'{{"events":{C}}}',
    f'{{"hierarchies":{{"hier1":{{"values":{C},"delim":44}},"hier2":{{"values":"kept"}}}}}}',
    f'{{"hierarchies":{{"hier1":{{"values":[{C}],"delim":"|"}}}}}}',
    *(f"{C}", f"[{C}]", f'{{"ip":{C}', f"{CANARY}", f'{{"pageName":{C}}} x'),
]
"""A record each, with the canary in a place that is hidden."""


def decode(lines: Sequence[bytes], twin: str, privacy: Privacy = PRIVACY) -> Decoded:
    hider = Hider(privacy) if privacy.hides else None
    decoder = BlockDecoder(INSTANCE, TWINS[twin](), hider)
    payload, block = block_of(lines)
    found = decoder.decode(payload, block)
    found.rejects = list(map(decoder.may_keep, found.rejects))
    return found


def staged(folder: Path, found: Decoded, privacy: Privacy = PRIVACY) -> dict[FileKind, Path]:
    share = Share(DISK, folder, PartIdentity(INSTANCE, "shop", privacy=privacy), batch=7, share=2, attempt=3)
    share.add(found, NONE, seq=7)
    return {file.kind: folder / file.staged for file in share.stage(ORDER)}


def read_everywhere(path: Path) -> str:
    """Everything in a part, as two engines and the footer say it."""
    with duckdb.connect() as connection:
        names = connection.execute(f"SELECT * FROM '{path}' LIMIT 0").description
        texts = ", ".join(f'"{name[0]}"::VARCHAR' for name in names)
        by_duckdb = connection.execute(f"SELECT {texts} FROM '{path}'").fetchall()
    footer = pq.read_metadata(path)
    statistics = [
        footer.row_group(group).column(column).to_dict()
        for group in range(footer.num_row_groups)
        for column in range(footer.num_columns)
    ]
    return f"{by_duckdb}{pl.read_parquet(path).to_dicts()}{footer.metadata}{statistics}"


def digest(value: str) -> str:
    return hmac.new(KEY, value.encode(), hashlib.sha256).hexdigest()


def row(line: str | bytes, twin: str, privacy: Privacy = PRIVACY) -> dict:
    line = line.encode() if isinstance(line, str) else line
    (found,) = rows_of(decode([line], twin, privacy))
    return found | {"extra": dict(found["extra"] or ())}


# ---------------------------------------------------------------- nothing gets through


def test_no_shape_gets_through_to_a_file(tmp_path, twin):
    """Columns, ``extra``, rejects, statistics, footers: read with two engines, and byte by byte."""
    lines = [shape.encode() for shape in SHAPES]
    found = decode(lines, twin)
    for batch in found.batches:
        batch.validate(full=True)
    for path in staged(tmp_path, found).values():
        if path.suffix == ".parquet":
            assert CANARY not in read_everywhere(path), path
        assert CANARY.encode() not in path.read_bytes()


def test_each_shape_would_get_through_without_privacy(tmp_path, twin):
    """The canary is really there: the rows of the same records hold it."""
    for shape in SHAPES:
        found = decode([shape.encode()], twin, Privacy())
        everything = str(rows_of(found)) + str(found.rejects)
        assert CANARY in everything or '"ip":1' in shape or '"ip":null' in shape or '"x":1' in shape, shape


def test_both_twins_hide_alike():
    """They share what hides, and give it the same."""
    lines = [*(shape.encode() for shape in SHAPES), *sample_lines()[:50]]
    kernel, plain = decode(lines, "kernel"), decode(lines, "plain")
    assert kernel.rejects == plain.rejects
    for ours, theirs in zip(kernel.batches, plain.batches, strict=True):
        agree_rows(ours, theirs, [lines[number] for number in kernel.lines])


NAMES = st.sampled_from(["ip", "IP", "iP ", "userAgent", "USERAGENT", "evar5", "evar6", "prop 3", "geoDMA"])
OTHERS = st.sampled_from(
    ["a", "pageName", "evars", "props", "products", "extra", "events", "evar7", "é", "a.b"]
)
INNOCENT = (
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "kept", "x\\y", "\U0001f600"])
)
SECRET = st.recursive(
    st.just(CANARY), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(OTHERS, inner, max_size=2)
)
ANY = st.recursive(
    INNOCENT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(OTHERS, inner, max_size=3)
        | st.dictionaries(NAMES, SECRET, max_size=2)
    ),
    max_leaves=10,
)
RECORDS = st.dictionaries(OTHERS, ANY, max_size=4).flatmap(
    lambda record: st.dictionaries(NAMES, SECRET, max_size=2).map(lambda hidden: record | hidden)
)


@given(records=st.lists(RECORDS, min_size=1, max_size=6), ascii_only=st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_record_gets_through(twin, records, ascii_only):
    """Whatever is under a hidden name, at any depth, is in no row; and the rows are valid."""
    lines = [json.dumps(record, ensure_ascii=ascii_only).encode() for record in records]
    found = decode(lines, twin)
    for batch in found.batches:
        batch.validate(full=True)
    assert CANARY not in str(rows_of(found))


# ---------------------------------------------------------------- nothing else is touched


def test_rows_without_hidden_fields_are_as_they_are_without_privacy(twin):
    """Of real and simulated hits everything else stays to the bit."""
    lines = [*sample_lines()[:200], *simulated_lines(200)]
    hidden = Privacy(("ip", "evars.evar5"), ("userAgent",), KEY)
    for ours, theirs in zip(
        decode(lines, twin, hidden).batches, decode(lines, twin, Privacy()).batches, strict=True
    ):
        for name in sorted({*ours.schema.names} - {"ip", "userAgent", "evars", "products"}):
            assert ours.column(name).equals(theirs.column(name)), name
        for mine, other in zip(
            ours.column("evars").to_pylist(), theirs.column("evars").to_pylist(), strict=True
        ):
            kept = None if other is None else [entry for entry in other if entry[0] != "evar5"]
            assert mine == kept


def test_what_stands_beside_stays(twin):
    """The smallest part that must go goes: neighbours, number texts and order stay."""
    found = row(
        '{"evars":{"evars":{"evar5":"s","evar7":7.50},"x":1e2},"u":{"b":[1.0,{"ip":1,"z":1.50}],"a":"\\u00e9"}}',
        twin,
    )
    assert dict(found["evars"]) == {"evar7": "7.50"}
    assert found["extra"]["evars"] == '{"evars":{"evar7":7.50},"x":1e2}'
    assert found["extra"]["u"] == '{"b":[1.0,{"z":1.50}],"a":"\\u00e9"}'


@pytest.mark.parametrize(
    "name", ["timeGMT", "products", "tnt", "evars", "events", "truncated", "visIdHigh", "exclude"]
)
def test_a_whole_column_of_any_kind_can_be_dropped(name, twin):
    """It is null in every row, and so is what was made of it."""
    found = decode(simulated_lines(20), twin, Privacy((name,)))
    for batch in found.batches:
        batch.validate(full=True)
        assert batch.column(name).null_count == batch.num_rows
        if name == "timeGMT":
            assert batch.column("hit_at").null_count == batch.num_rows
        if name in {"evars", "events"}:
            products = pa.concat_arrays([batch.column("products")]).flatten()
            assert products.field(name).null_count == len(products)


# ---------------------------------------------------------------- hashes


def test_a_hash_is_the_hmac_of_the_value_and_null_and_empty_stay(twin):
    """As the documentation says, so that it can be computed again."""
    assert row('{"userAgent":"M\\u00f6zilla"}', twin)["userAgent"] == digest("Mözilla")
    assert row('{"userAgent":null}', twin)["userAgent"] is None
    assert row('{"userAgent":""}', twin)["userAgent"] == ""
    assert row("{}", twin)["userAgent"] is None
    evars = row('{"evars":{"evars":{"evar6":"a","evar7":"b"}}}', twin)["evars"]
    assert evars == [("evar6", digest("a")), ("evar7", "b")]
    empty = row('{"evars":{"evars":{"evar6":"","evar7":null}}}', twin)["evars"]
    assert empty == [("evar6", ""), ("evar7", None)]


def test_what_fits_no_column_is_hashed_in_extra(twin):
    """Of a string its value, so that it is found under the same hash; of anything else its JSON text."""
    assert json.loads(row('{"userAgent":[1, 2]}', twin)["extra"]["userAgent"]) == digest("[1, 2]")
    assert json.loads(row('{"UserAgent":"x"}', twin)["extra"]["UserAgent"]) == digest("x")
    shown = row('{"evars":{"evars":{"evar6":5.0}}}', twin)
    assert dict(shown["evars"])["evar6"] == digest("5.0")
    assert json.loads(shown["extra"]["evars.evar6"]) == digest("5.0")
    assert row('{"UserAgent":null,"USERAGENT":""}', twin)["extra"] == {"UserAgent": "null", "USERAGENT": '""'}


def test_equal_values_have_equal_hashes_across_fields_and_blocks(twin):
    """A join still works; another key gives another hash."""
    both = row('{"userAgent":"same","props":{"site_section":"same"}}', twin)
    assert both["userAgent"] == dict(both["props"])["site_section"]
    other = Privacy(DROP, HASH, KEY[::-1])
    assert row('{"userAgent":"same"}', twin, other)["userAgent"] != both["userAgent"]


# ---------------------------------------------------------------- rejects and parts


def test_a_reject_keeps_reason_length_and_sha256_alone(tmp_path, twin):
    """Nothing of the record, not even the character it begins with."""
    raw = f"Z{CANARY}".encode()
    found = decode([raw], twin)
    part = staged(tmp_path, found)[FileKind.REJECTS]
    (reject,) = pq.read_table(part).to_pylist()
    sha256 = hashlib.sha256(raw).hexdigest()
    assert reject["raw"] is None
    assert reject["reason"].startswith(f"not an object: record of {len(raw)} bytes, sha256 {sha256};")
    assert "'Z'" not in reject["reason"]
    assert write_lines(DISK, part, tmp_path / "lines") == LeftOut(withheld=1)


def test_an_oversized_record_keeps_its_own_length_and_sha256(twin):
    """Of the whole record, of which only the beginning was ever kept."""
    record = Oversized(CANARY.encode(), 99_000_000, hashlib.sha256(b"all of it").digest())
    payload = msgspec.msgpack.encode(record)
    _, block = block_of([b""], flags=BlockFlag.OVERSIZED)
    decoder = BlockDecoder(INSTANCE, TWINS[twin](), Hider(PRIVACY))
    (reject,) = decoder.decode(payload, msgspec.structs.replace(block, length=len(payload))).rejects
    kept = decoder.may_keep(reject)
    assert kept.raw is None
    assert f"record of 99000000 bytes, sha256 {record.sha256.hex()}" in kept.reason
    assert CANARY not in kept.reason


def test_a_poisoned_record_keeps_why(twin):
    """What the decoder died of is no part of the record."""
    decoder = BlockDecoder(INSTANCE, TWINS[twin](), Hider(PRIVACY))
    payload, block = block_of([f'{{"ip":{C}}}'.encode(), b"{}"])
    found, _ = decode_carefully(
        decoder, payload, block, line_by_line=True, poison={0: "it hung"}, begins=lambda _: None
    )
    (kept,) = map(decoder.may_keep, found.rejects)
    assert kept.reason.startswith("poison: it hung; record of")
    assert (kept.raw, CANARY in kept.reason) == (None, False)


def test_a_part_says_what_is_hidden_in_it_and_never_the_key(tmp_path, twin):
    """Names and a fingerprint; another key, another fingerprint; without privacy nothing is said."""
    said = {}
    for name, privacy in {"a": PRIVACY, "b": Privacy((), HASH, KEY[::-1]), "none": Privacy()}.items():
        (tmp_path / name).mkdir()
        part = staged(tmp_path / name, decode([b"{}"], twin, privacy), privacy)[FileKind.HITS]
        metadata = pq.read_metadata(part).metadata or {}
        assert not any(KEY in text or KEY[::-1] in text for text in metadata.values())
        said[name] = {key: text for key, text in metadata.items() if b"privacy" in key}
    assert said["a"][b"collector.privacy_dropped"] == " ".join(DROP).encode()
    assert said["a"][b"collector.privacy_hashed"] == " ".join(HASH).encode()
    assert b"collector.privacy_dropped" not in said["b"]
    assert said["a"][b"collector.privacy_key"] != said["b"][b"collector.privacy_key"]
    assert len(said["a"][b"collector.privacy_key"]) == 8
    assert said["none"] == {}


def test_the_key_is_in_no_representation():
    """Of the message that carries it."""
    assert KEY.decode() not in repr(PRIVACY)
    assert np.all([KEY.decode() not in text for text in PRIVACY.metadata().values()])


def test_a_defect_is_shown_without_its_words(capfd):
    """Libraries quote what they could not read."""
    careful._say.cache_clear()  # it says things once
    with pytest.raises(ValueError, match="canary") as caught:
        int(CANARY)
    show_defect_without_words(caught.type, caught.value, caught.tb)
    said = capfd.readouterr().err
    assert "test_privacy.py" in said
    assert "ended by a ValueError" in said
    assert CANARY not in said
