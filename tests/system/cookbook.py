"""The blocks of ``docs/cookbook.md``, and what each recipe must give, worked out by plain Python."""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from harness import PATIENCE_S, ROOT

from collector.simulator.hits import Hits, Timeline

PAGE = ROOT / "docs" / "cookbook.md"
SETUP = "Ready to ask"
ENGINES = ("duckdb", "polars", "clickhouse", "spark")
DATA = "/data/livestream"
"""Where the page has its output folder."""

END_S = 1_790_038_800
"""2026-09-22T01:00:00Z: the hits before lie on both sides of midnight."""

VISIT = dt.timedelta(minutes=30)
LATE_EVERY = 97
LATE_S = 5 * 3600
SPECIAL = [(2**64 - 1, 2**63), (2**63, 2**64 - 1), (2**63 - 1, 2**63)]


def blocks() -> dict[str, dict[str, str]]:
    """By heading and engine, in the order of the page."""
    found: dict[str, dict[str, str]] = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        heading = section.partition("\n")[0]
        fences = re.findall(r"^```(?:sql|python) (\w+)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
        assert len(dict(fences)) == len(fences), f"two blocks for one engine under {heading}"
        found[heading] = dict(fences)
    return found


def make(output: Path) -> None:
    """Two hosts' saved files of one stream, which have hits in common, late hits, rejects and special ids."""
    squeezed = 3000
    hits = Hits(11, Timeline(start_s=END_S, hours=1.5, squeezed=squeezed))
    lines = []
    for number, line in enumerate(hits.lines(0, squeezed)):
        hit = json.loads(line)
        if number % LATE_EVERY == 0:
            hit["timeGMT"] -= LATE_S
        lines.append(json.dumps(hit).encode())
    special = json.loads(lines[5])
    more = [json.dumps(special | {"hitIdHigh": high, "hitIdLow": low}).encode() for high, low in SPECIAL]
    without_ids = [json.dumps({"pageName": "no ids", "receivedTimeGMT": END_S - 60}).encode()] * 2
    hosts = {
        "a": lines[:1800] + more + without_ids + [b"no json", b"[1]"],
        "b": [*lines[1500:], b"nor this", b"x"],
    }
    for host, content in hosts.items():
        file = output.parent / f"{host}.jsonl"
        file.write_bytes(b"\n".join(content))
        command = [sys.executable, "-m", "collector", "decode", str(file), "--stream", "shop"]
        command += ["--output", str(output), "--state", str(output.parent / f"state-{host}")]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=PATIENCE_S)


class Rows:
    """What pyarrow reads, with the keys of the path."""

    def __init__(self, output: Path) -> None:
        self.hits = list(_read(output / "hits"))
        self.shop = [row for row in self.hits if row["stream"] == "shop"]
        self.rejects = list(_read(output / "rejects"))
        self.connections = list(_read(output / "connections"))


def _read(root: Path):
    for path in sorted(root.rglob("*.parquet")):
        keys = dict(
            part.split("=", 1) for part in path.parent.parts if part.startswith(("stream=", "date=", "hour="))
        )
        for row in pq.read_table(path, partitioning=None).to_pylist():
            yield row | keys


def _visitor(row: dict) -> tuple | None:
    return None if row["visIdHigh"] is None else (row["visIdHigh"], row["visIdLow"])


def top_pages(rows: Rows) -> list[tuple]:
    count = Counter((row["date"], row["hour"], row["pageName"]) for row in rows.shop)
    by_hour = defaultdict(list)
    for (date, hour, page), hits in count.items():
        by_hour[date, hour].append((date, hour, page, hits))
    ranked = (sorted(pages, key=lambda page: (-page[3], page[2]))[:3] for _, pages in sorted(by_hour.items()))
    return [page for pages in ranked for page in pages]


def visits(rows: Rows) -> list[tuple]:
    times = defaultdict(list)
    for row in rows.shop:
        if (visitor := _visitor(row)) is not None:
            times[visitor].append(row["hit_at"])
    begun = []
    for visitor, moments in times.items():
        moments.sort()
        before = [None, *moments[:-1]]
        begun += [
            (at.date(), visitor)
            for at, last in zip(moments, before, strict=True)
            if last is None or at - last > VISIT
        ]
    days = sorted({day for day, _ in begun})
    return [
        (day, sum(at == day for at, _ in begun), len({who for at, who in begun if at == day})) for day in days
    ]


def funnel(rows: Rows) -> list[tuple]:
    steps = [
        lambda row: (row["pageName"] or "").startswith("site:home:"),
        lambda row: bool(row["products"]),
        lambda row: bool(row["purchaseId"]),
    ]
    reached: dict[Any, dt.datetime] | None = None
    counts = []
    for step in steps:
        first: dict[Any, dt.datetime] = {}
        for row in rows.shop:
            visitor = _visitor(row)
            if visitor is None or not step(row) or (reached is not None and visitor not in reached):
                continue
            if reached is None or row["hit_at"] > reached[visitor]:
                first[visitor] = min(row["hit_at"], first.get(visitor, row["hit_at"]))
        reached = first
        counts.append(len(first))
    return [tuple(counts)]


def campaigns(rows: Rows) -> list[tuple]:
    found = defaultdict(list)
    for row in rows.shop:
        campaign = dict(row["evars"] or ()).get("campaign")
        if campaign is not None:
            found[campaign].append(row)
    results = [
        (
            campaign,
            len(hits),
            len({_visitor(row) for row in hits}),
            sum(item["revenue"] or 0 for row in hits if row["purchaseId"] for item in row["products"] or ()),
        )
        for campaign, hits in found.items()
    ]
    return sorted(results, key=lambda row: (-row[1], row[0]))[:10]


def products(rows: Rows) -> list[tuple]:
    found = defaultdict(list)
    for row in rows.shop:
        for item in (row["products"] or ()) if row["purchaseId"] else ():
            found[item["name"]].append((row["purchaseId"], item["units"], item["revenue"]))
    results = [
        (
            name,
            len({order for order, _, _ in sold}),
            sum(units for _, units, _ in sold),
            sum(r for _, _, r in sold),
        )
        for name, sold in found.items()
    ]
    return sorted(results, key=lambda row: (-row[3], row[0]))[:10]


def late_hits(rows: Rows) -> list[tuple]:
    found = defaultdict(list)
    for row in rows.shop:
        if row["hit_at"] is not None and row["received_at"] - row["hit_at"] > dt.timedelta(hours=1):
            delay_s = (row["received_at"] - row["hit_at"]).total_seconds()
            found[f"{row['hit_at']:%Y-%m-%d %H}"].append(int(delay_s))
    return [(hour, len(delays), max(delays)) for hour, delays in sorted(found.items())]


def missed(rows: Rows) -> list[tuple]:
    names = ("stream", "began_at", "ended_at", "reason", "suspected_gap", "suspected_gap_rule")
    gaps = [tuple(row[name] for name in names) for row in rows.connections if row["kind"] == "gap"]
    return sorted(gaps)


def rejects(rows: Rows) -> list[tuple]:
    hits = Counter(row["stream"] for row in rows.hits)
    refused = Counter((row["stream"], row["reason"].split(":")[0]) for row in rows.rejects)
    in_all = Counter(row["stream"] for row in rows.rejects)
    return [
        (stream, reason, count, float(round(1e6 * count / (hits[stream] + in_all[stream]))))
        for (stream, reason), count in sorted(refused.items())
    ]


def without_doubles(rows: Rows) -> list[tuple]:
    order = ("collected_at", "collector_instance", "collector_block", "collector_line")
    seen, kept = set(), Counter()
    for row in sorted(rows.shop, key=lambda row: tuple(row[name] for name in order)):
        name = (row["hitIdHigh"], row["hitIdLow"])
        kept[row["date"], row["hour"]] += row["hitIdHigh"] is None or name not in seen
        seen.add(name)
    read = Counter((row["date"], row["hour"]) for row in rows.shop)
    return [(*hour, count, kept[hour]) for hour, count in sorted(read.items())]


def by_id(rows: Rows) -> list[tuple]:
    found = [
        (int(row["hitIdHigh"]), int(row["hitIdLow"]), f"{row['hitIdHigh']}-{row['hitIdLow']}")
        for row in rows.hits
        if row["hitIdHigh"] == 2**64 - 1 or row["hitIdLow"] == 2**63
    ]
    return sorted(found)


EXPECTED = {
    "Top pages of each hour": top_pages,
    "Visits": visits,
    "Funnels": funnel,
    "Campaigns": campaigns,
    "Products": products,
    "Late hits": late_hits,
    "What was missed last night": missed,
    "Rejects beside hits": rejects,
    "Several hosts, before `compact`": without_doubles,
    "One hit by its ids": by_id,
}


def plain(value: Any) -> Any:
    """The same value from every engine: texts for times and dates, numbers without their types."""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat()
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, Decimal) and value == int(value):
        return int(value)
    return float(f"{value:.9g}") if isinstance(value, float) else value


def plain_rows(rows) -> list[list[Any]]:
    return [[plain(value) for value in row] for row in rows]
