"""The simulator's hits."""

from __future__ import annotations

import collections
import functools
import json
import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.simulator.hits import Hits, Timeline, hit, index_of, indices_of

# fmt: off
DOCUMENTED = {
    "bot", "browser", "browserHeight", "browserWidth", "campaign", "carrier", "connectionType",
    "currency", "customVisId", "evars", "events", "exclude", "geoCity", "geoCountry", "geoDMA",
    "geoRegion", "geoZip", "hierarchies", "hitIdHigh", "hitIdLow", "hitSource", "ip", "isErrorPage",
    "javaEnabled", "language", "languageAbbrev", "lat", "lon", "mcAudiences", "mcVisIdHigh",
    "mcVisIdLow", "mobileAudioSupport", "mobileColorDepth", "mobileCookieSupport", "mobileDeviceName",
    "mobileDeviceType", "mobileManufacturer", "mobileScreenHeight", "mobileScreenWidth",
    "mobileVideoSupport", "monitorColorDepth", "monitorHeight", "monitorWidth", "mvvars",
    "operatingSystem", "pageName", "pageURL", "props", "products", "purchaseId", "receivedTimeGMT",
    "referrer", "reportSuite", "searchEngine", "service", "timeGMT", "tnt", "tntAction",
    "topLevelDomain", "transactionId", "truncated", "userAgent", "usesPersistentCookie", "visIdHigh",
    "visIdLow", "visIdType", "zip", "browserType", "domain",
}
# fmt: on

CLOCK = Timeline()


@functools.cache
def some(count: int = 4000, seed: int = 0, timeline: Timeline = CLOCK) -> list[dict]:
    return [json.loads(line) for line in Hits(seed, timeline).lines(0, count)]


@settings(max_examples=50)
@given(st.integers(0, 2**63), st.integers(0, 2**48 - 1))
def test_ids_invert(seed: int, i: int) -> None:
    """Whoever knows the seed gets the number of a hit back from its ids."""
    found = json.loads(hit(seed, i))
    assert index_of(seed, found["hitIdHigh"], found["hitIdLow"]) == i


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_invented_ids_are_no_hit(high: int, low: int) -> None:
    """Ids that no hit has belong to no number, for one and for many at once."""
    assert index_of(3, high, low) is None
    assert indices_of(3, np.array([high], np.uint64), np.array([low], np.uint64)).tolist() == [-1]


def test_many_ids_invert_at_once() -> None:
    """The vectorised inverse is the single one."""
    hits = some(500, seed=9)
    high = np.array([it["hitIdHigh"] for it in hits], np.uint64)
    low = np.array([it["hitIdLow"] for it in hits], np.uint64)
    assert indices_of(9, high, low).tolist() == list(range(500))


def test_hit_is_a_function_of_seed_and_number() -> None:
    """A hit does not depend on what was made before it or beside it."""
    batch = Hits(5).lines(1000, 300)
    order = list(range(300))
    random.Random(1).shuffle(order)
    fresh = Hits(5)
    assert all(fresh.lines(1000 + k, 1)[0] == batch[k] == hit(5, 1000 + k) for k in order[:50])


def test_seeds_differ() -> None:
    """Another seed gives other hits with other ids."""
    first, second = json.loads(hit(1, 0)), json.loads(hit(2, 0))
    assert first["hitIdHigh"] != second["hitIdHigh"]
    assert index_of(1, second["hitIdHigh"], second["hitIdLow"]) is None


def test_every_documented_field_appears() -> None:
    """Every documented field is seen, and fields that are not documented too."""
    seen = set().union(*some(12_000))
    assert not DOCUMENTED - seen
    assert seen - DOCUMENTED


def test_documented_disagreements_appear() -> None:
    """Both sides of every disagreement in shape are seen."""
    hits = some(12_000)

    def kinds(pick) -> set[type]:
        return {type(pick(it)) for it in hits if pick(it) is not None}

    assert kinds(lambda it: it["exclude"]["id"]) == {str, int}
    assert kinds(lambda it: it["hierarchies"]["hier1"]["values"]) == {str, list}
    assert kinds(lambda it: it["hierarchies"]["hier1"]["delim"]) == {str, int}
    assert kinds(lambda it: it["tnt"]) == {list, dict}
    assert kinds(lambda it: it["geoDMA"]) == {str, int}
    assert kinds(lambda it: it.get("mobileVideoSupport")) == {bool, str}
    assert kinds(lambda it: it["evars"]["evars"].get("evar9")) == {str, float}
    assert {type(p["events"]) for it in hits for p in it["products"]} == {dict, list}
    assert any(it["geoCity"] is None for it in hits)


def test_ids_use_all_64_bits() -> None:
    """Each of the six ids is spread over the whole unsigned range."""
    hits = some(2000)
    for name in ("hitIdHigh", "hitIdLow", "visIdHigh", "visIdLow", "mcVisIdHigh", "mcVisIdLow"):
        values = [it[name] for it in hits]
        assert 0 <= min(values) < 2**60
        assert 2**63 + 2**62 < max(values) < 2**64


def test_pages_are_skewed() -> None:
    """A few pages have most of the hits."""
    pages = collections.Counter(it["pageName"] for it in some())
    top = sum(count for _, count in pages.most_common(len(pages) // 10))
    assert top > 0.35 * pages.total()
    assert len(pages) > 100


def test_visitors_have_sessions() -> None:
    """A visitor has several hits, on one device in one place."""
    by_visitor = collections.defaultdict(list)
    for it in some(8000):
        by_visitor[it["visIdHigh"], it["visIdLow"]].append(it)
    several = [hits for hits in by_visitor.values() if len(hits) > 1]
    assert len(several) > len(by_visitor) / 2
    assert all(len({(it["ip"], it["geoZip"], it["visIdType"]) for it in hits}) == 1 for hits in several)


def test_purchases_have_ids_of_their_own() -> None:
    """Some hits are purchases with products and an id no other purchase has; the others have none."""
    purchases = [it for it in some(12_000) if "purchaseId" in it]
    assert 30 < len(purchases) < 1200
    assert all(it["products"] for it in purchases)
    assert len({it["purchaseId"] for it in purchases}) == len(purchases)


def test_size_is_about_3_kb() -> None:
    """Hits are as large as real ones."""
    sizes = [len(line) for line in Hits(0).lines(0, 4000)]
    assert 2900 < sum(sizes) / len(sizes) < 3400


def test_hours_are_squeezed() -> None:
    """``hours`` spreads the first hits over that much time and ends at the start time."""
    timeline = Timeline(start_s=1_795_000_000, hours=2.0, squeezed=1000)
    times = [it["receivedTimeGMT"] for it in some(1000, timeline=timeline)]
    assert 7100 < max(times) - min(times) < 7300
    assert 1_795_000_000 - 60 < max(times) <= 1_795_000_000


def test_time_goes_on_with_the_hits() -> None:
    """Without ``hours``, a hit is ``step_us`` later than the one before, but for the service's disorder."""
    timeline = Timeline(start_s=1000, step_us=1_000_000)
    times = [it["receivedTimeGMT"] - 1000 - i for i, it in enumerate(some(300, timeline=timeline))]
    assert -32 < min(times) <= max(times) <= 0
    assert len(set(times)) > 10


@settings(max_examples=40)
@given(st.integers(1, 8), st.integers(0, 5000), st.integers(1, 200))
def test_shares_split_by_visitor(shares: int, first: int, count: int) -> None:
    """Every hit is in exactly one share, and a visitor always in the same."""
    hits = Hits(0)
    parts = [hits.lines_of_share(first, count, share, shares) for share in range(shares)]
    assert sorted(line for part in parts for line in part) == sorted(hits.lines(first, count))
    seen: dict[tuple[int, int], int] = {}
    for share, part in enumerate(parts):
        for it in map(json.loads, part):
            assert seen.setdefault((it["visIdHigh"], it["visIdLow"]), share) == share
