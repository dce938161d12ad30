"""The figures that the report speaks of by name, and what they must reach. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.figures import COST, Figure, Result

PEERS = "peer: file to Parquet"
OURS, OURS_PLAIN = "collector", "collector_plain"
KERNEL, PLAIN = "kernel", "plain"
STREAM_PEERS = "peer: socket to Parquet"
CLICKHOUSE, DUCKDB, BY_HAND, INFERRED = "clickhouse", "duckdb", "handwritten", "handwritten_inferred"
SOCKET = "whole: socket to Parquet"
STEADY = "whole: steady 1,000 hits/s"
SILENT = "whole: silent stream"
START = "whole: start"
CRASH = "whole: after SIGKILL of everything at full rate"
DECODING = "stage: decode block"
FIELDS = "growth: fields at the same bytes"
ODD = "growth: odd hits"
IDS = tuple(f"growth: resend index, {what}" for what in ("claims", "runs and their merges", "start"))
BATCHES = tuple(f"growth: committed batches, {what}" for what in ("one more", "start"))
MOST_IDS, MOST_BATCHES = 20_000_000, 10_000

_BEFORE = (("inflate",), ("framing",), ("journal write", "recycled"), ("journal read",))
_AFTER = (("resend index",), ("messages",), ("Parquet", "share"), ("commit",))
PLAIN_DECODING = (
    *(("line borders",), ("strict", "usual"), ("trapped lines",)),
    *(("columns", "read"), ("columns", "unfit rows")),
)
PATHS: Mapping[str, Sequence[tuple[str, ...]]] = {
    "kernel": (*_BEFORE, ("kernel",), *_AFTER),
    "plain": (*_BEFORE, *PLAIN_DECODING, *_AFTER),
}
"""By twin the stages that a hit without oddities passes through, each with its parameter; TLS is none."""

CORES_FOR_TWO = 4
"""The server's work, the reader and two decoders at the same time."""

Measure = Callable[[Result], float | None]


@dataclass(frozen=True, slots=True)
class Target:
    what: str
    bound: float
    form: str
    """How bound and measured value are shown."""
    measure: Measure
    is_least: bool = False
    """The bound is the least that is asked for; otherwise the most."""
    cores: int = 1
    """With fewer it cannot be judged."""

    def reached(self, result: Result) -> str:
        value = self.measure(result)
        if value is None:
            return "not measured"
        if value >= self.bound if self.is_least else value <= self.bound:
            return "yes"
        too_few = result.cores is not None and result.cores < self.cores
        return f"no (asks for {self.cores} cores, has {result.cores})" if too_few else "no"

    def asked(self) -> str:
        return ("at least " if self.is_least else "at most ") + self.form.format(self.bound)

    def measured(self, result: Result) -> str:
        value = self.measure(result)
        return "not measured" if value is None else self.form.format(value)


def number(name: str, group: str, *values: object, scale: float = 1.0) -> Measure:
    def measure(result: Result) -> float | None:
        figure = result.find(group, *values)
        found = figure.numbers.get(name) if figure else None
        return None if found is None else found * scale

    return measure


def ratio(above: Measure, below: Measure) -> Measure:
    def measure(result: Result) -> float | None:
        numerator, denominator = above(result), below(result)
        return None if numerator is None or not denominator else numerator / denominator

    return measure


def peer(name: str) -> Measure:
    return number(COST, PEERS, name)


def per_core(cost: Measure) -> Measure:
    """Hits a second that one core carries at this cost."""
    return ratio(lambda _: 1e6, cost)


def curve(figures: Sequence[Figure]) -> list[Figure]:
    """By size: the parameters that are numbers."""
    return sorted(figures, key=_size)


def _size(figure: Figure) -> list[float]:
    return [float(value) for value in figure.params.values() if isinstance(value, int | float)]


def steepness(group: str, *values: object) -> Measure:
    """The highest cost of a curve against that of its smallest size, by itself."""

    def measure(result: Result) -> float | None:
        wanted = {str(value) for value in values}
        found = [
            at for at in result.of_group(group) if wanted <= {str(value) for value in at.params.values()}
        ]
        costs = [figure.cost_us for figure in curve(found)]
        return max(costs) / costs[0] if len(costs) > 1 and costs[0] else None

    return measure


def grown(groups: Sequence[str], most: int) -> Measure:
    """The whole cost of a hit at the worst size of each curve against that at the smallest."""

    def measure(result: Result) -> float | None:
        whole = WITHOUT_START(result)
        if whole is None or any(result.find(group, most) is None for group in groups):
            return None
        curves = [[figure.cost_us for figure in curve(result.of_group(group))] for group in groups]
        return (whole + sum(max(costs) - costs[0] for costs in curves)) / whole

    return measure


WITHOUT_START = number("cpu_us_per_hit_steady", SOCKET, 2, KERNEL)
"""Of the collector from socket to Parquet: what its peers are measured by, too."""
HITS_PER_S = {decoders: number("hits_per_s", SOCKET, decoders, KERNEL) for decoders in (1, 2)}

TARGETS = (
    Target(
        "socket to Parquet against ClickHouse from a file",
        0.85,
        "{:.2f} x",
        ratio(WITHOUT_START, peer(CLICKHOUSE)),
    ),
    Target(
        "socket to Parquet against DuckDB from a file", 0.7, "{:.2f} x", ratio(WITHOUT_START, peer(DUCKDB))
    ),
    Target(
        "handwritten script on the same stream against socket to Parquet",
        *(10.0, "{:.1f} x", ratio(number(COST, STREAM_PEERS, BY_HAND), WITHOUT_START)),
        is_least=True,
    ),
    Target(
        "handwritten script, types inferred, from a file against socket to Parquet",
        *(10.0, "{:.1f} x", ratio(peer(INFERRED), WITHOUT_START)),
        is_least=True,
    ),
    Target("file to Parquet against ClickHouse", 0.75, "{:.2f} x", ratio(peer(OURS), peer(CLICKHOUSE))),
    Target(
        "file to Parquet without the kernel against ClickHouse",
        *(1.25, "{:.2f} x", ratio(peer(OURS_PLAIN), peer(CLICKHOUSE))),
    ),
    Target(
        "decoding with the kernel against without",
        *(0.4, "{:.2f} x", ratio(number(COST, DECODING, KERNEL), number(COST, DECODING, PLAIN))),
    ),
    Target(
        "two decoders against one, hits/s",
        *(1.6, "{:.2f} x", ratio(HITS_PER_S[2], HITS_PER_S[1])),
        is_least=True,
        cores=CORES_FOR_TWO,
    ),
    Target(
        "reader alone: hits/s that its CPU time is enough for",
        *(120_000, "{:,.0f}", per_core(number("cpu_us_per_hit_reader", SOCKET, 2, KERNEL))),
        is_least=True,
    ),
    Target("memory at full rate", 600, "{:,.0f} MB", number("peak_bytes", SOCKET, 2, KERNEL, scale=1e-6)),
    Target("arrival to durable at 1,000 hits/s, p99", 0.5, "{:.3f} s", number("durable_p99_s", STEADY)),
    Target("silent stream", 0.5, "{:.2f} % of a core", number("core_percent", SILENT)),
    Target("start to first request", 1.0, "{:.2f} s", number("to_request_s", START)),
    Target(
        "start after SIGKILL at full rate, a batch in the journal",
        5.0,
        "{:.2f} s",
        number("recovered_s", CRASH),
    ),
    Target("`--help`", 0.3, "{:.2f} s", number("help_s", START)),
    Target(
        "a hit with 20,000,000 ids in the resend index against 100,000", 1.3, "{:.2f} x", grown(IDS, MOST_IDS)
    ),
    Target("a hit after 10,000 committed batches against 1", 1.3, "{:.2f} x", grown(BATCHES, MOST_BATCHES)),
    Target(
        "decoding, ten times the fields in the same bytes",
        *(1.3, "{:.2f} x", steepness(FIELDS, "evars and props", KERNEL)),
    ),
)
