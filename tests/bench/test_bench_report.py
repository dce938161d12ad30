from __future__ import annotations

import pytest

from bench.figures import Result, read
from bench.report import page, table
from bench.targets import TARGETS, curve
from tests.bench.made_results import rounds, write

PEERS = "peer: file to Parquet"
SOCKET = "whole: socket to Parquet"
BY_PROCESS = {
    "cpu_us_per_hit_reader": 3.0,
    "cpu_us_per_hit_decoders": 27.0,
    "cpu_us_per_hit_coordinator": 1.0,
}


def socket(decoders, steady_us, hits_per_s, **more):
    numbers = {"cpu_us_per_hit_steady": steady_us, "hits_per_s": hits_per_s, "peak_bytes": 500e6} | BY_PROCESS
    return rounds(SOCKET, "test_socket", [steady_us + 1], numbers | more, twin="kernel", decoders=decoders)


def peer(name, cost_us, **more):
    return rounds(PEERS, "test_peers", [cost_us], {"settings": "zstd 1", "lacks": "a | b"} | more, peer=name)


@pytest.fixture
def made(tmp_path):
    def make(*groups, **more) -> Result:
        return read(write(tmp_path / "r.json", *groups, **more))

    return make


def verdicts(result):
    return {at.what: (at.measured(result), at.reached(result)) for at in TARGETS}


def line(text, start):
    return next(at for at in text.splitlines() if at.startswith(start))


def test_what_was_not_measured_is_said_and_never_guessed(made):
    result = made(rounds("stage: inflate", "test_inflate", [1.0]))
    assert set(verdicts(result).values()) == {("not measured", "not measured")}
    assert page(result).count("Not measured.") == 3


def test_ratios_to_peers_are_of_costs_without_the_start(made):
    result = made(
        socket(2, 17.0, 1),
        peer("clickhouse", 20.0),
        peer("duckdb", 40.0),
        peer("handwritten_inferred", 300.0),
    )
    found = verdicts(result)
    assert found["socket to Parquet against ClickHouse from a file"] == ("0.85 x", "yes")
    assert found["socket to Parquet against DuckDB from a file"] == ("0.42 x", "yes")
    assert found["handwritten script, types inferred, from a file against socket to Parquet"] == (
        "17.6 x",
        "yes",
    )
    assert found["file to Parquet against ClickHouse"] == ("not measured", "not measured")


@pytest.mark.parametrize(
    ("cores", "two", "reached"),
    [(8, 16_000, "yes"), (2, 16_000, "yes"), (8, 15_000, "no"), (2, 15_000, "no (asks for 4 cores, has 2)")],
)
def test_too_few_cores_for_two_decoders_are_said(made, cores, two, reached):
    result = made(socket(1, 30.0, 10_000), socket(2, 30.0, two), machine={"cores": cores})
    assert verdicts(result)["two decoders against one, hits/s"][1] == reached


def test_bounds_of_time_and_memory(made):
    result = made(
        socket(2, 30.0, 1, peak_bytes=700e6),
        rounds("whole: steady 1,000 hits/s", "t", [80.0], {"durable_p99_s": 0.4}, hits_per_s=1000),
        rounds("whole: silent stream", "t", [2000.0], {"hits": 1, "core_percent": 0.6}),
        rounds("whole: start", "t", [1e6], {"hits": 1, "to_request_s": 0.9, "help_s": 0.31}),
    )
    found = verdicts(result)
    assert found["memory at full rate"] == ("700 MB", "no")
    assert found["arrival to durable at 1,000 hits/s, p99"] == ("0.400 s", "yes")
    assert found["silent stream"] == ("0.60 % of a core", "no")
    assert found["start to first request"] == ("0.90 s", "yes")
    assert found["`--help`"] == ("0.31 s", "no")
    assert found["reader alone: hits/s that its CPU time is enough for"] == ("333,333", "yes")


def ids(costs_us):
    return [
        one
        for what in ("claims", "runs and their merges", "start")
        for size, cost_us in costs_us.items()
        for one in rounds(f"growth: resend index, {what}", "t", [cost_us], ids=size)
    ]


def test_ids_and_batches_count_as_what_they_add_to_a_whole_hit(made):
    """Three curves, each 3 us higher at its worst than at its smallest, on 30 us."""
    result = made(socket(2, 30.0, 1), ids({100_000: 1.0, 1_000_000: 4.0, 20_000_000: 2.0}))
    what = "a hit with 20,000,000 ids in the resend index against 100,000"
    assert verdicts(result)[what] == ("1.30 x", "yes")


def test_a_curve_without_its_largest_size_is_not_judged(made):
    result = made(socket(2, 30.0, 1), ids({100_000: 1.0, 1_000_000: 1.0}))
    what = "a hit with 20,000,000 ids in the resend index against 100,000"
    assert verdicts(result)[what] == ("not measured", "not measured")


def test_curves_go_by_size(made):
    result = made(ids({20_000_000: 2.0, 100_000: 1.0}))
    figures = curve(result.of_group("growth: resend index, claims"))
    assert [figure.params["ids"] for figure in figures] == [100_000, 20_000_000]


def test_peers_have_ratios_settings_and_what_they_lack(made):
    text = page(made(peer("collector", 25.0), peer("clickhouse", 20.0), peer("duckdb_inferred", 100.0)))
    assert line(text, "| clickhouse") == "| clickhouse | 20.0 | 0.80 | zstd 1 | a \\| b |"
    assert line(text, "| **collector**").startswith("| **collector** | 25.0 | 1.00 |")
    assert line(text, "| duckdb inferred").startswith("| duckdb inferred | 100.0 | 4.00 |")


def test_peers_on_the_stream_are_compared_with_the_whole(made):
    by_hand = rounds("peer: socket to Parquet", "t", [300.0], peer="handwritten")
    text = page(made(by_hand, socket(2, 30.0, 1)))
    assert line(text, "| **collector**").startswith("| **collector** | 30.0 | 1.00 | two decoders")
    assert line(text, "| handwritten |").startswith("| handwritten | 300.0 | 10.00 |")


def test_peers_without_ours_have_no_ratio(made):
    assert "| clickhouse | 20.0 | not measured |" in page(made(peer("clickhouse", 20.0)))


def test_what_has_no_hits_has_no_cost_per_hit(made):
    text = page(made(socket(2, 30.0, 9_999), rounds("whole: start", "t", [1e6], {"hits": 1, "help_s": 0.2})))
    assert (
        line(text, "| socket to Parquet (")
        == "| socket to Parquet (decoders 2, kernel) | 9,999 | 31.0 | 30.0 | 3.0 | 27.0 | 1.0 | 500 |  |"
    )
    assert line(text, "| start |") == "| start |  |  |  |  |  |  |  | 0.20 |"


def test_growth_is_shown_against_the_smallest_of_the_same_kind(made):
    text = page(
        made(
            *(
                rounds("growth: fields at the same bytes", "t", [cost_us], where=where, fields=fields)
                for where, fields, cost_us in (("maps", 12, 8.0), ("maps", 120, 12.0), ("extra", 12, 20.0))
            ),
            rounds("growth: odd hits", "t", [15.0], odd=0.05),
        )
    )
    assert "| fields at the same bytes | fields 120, maps | 12.00 | 1.50 |" in text
    assert "| fields at the same bytes | fields 12, extra | 20.00 | 1.00 |" in text
    assert "| odd hits | 5% | 15.00 | 1.00 |" in text


def test_the_page_says_where_its_numbers_come_from(made):
    text = page(made(socket(2, 30.0, 1), machine={"quick": True}, dirty=True))
    assert "`scripts/bench --report`" in text
    assert "A quick run" in text
    assert "| commit | 0123456789ab+ |" in text
    assert "| versions | collector 1.0, Python 3.11.7, pyarrow 25.0 |" in text


def test_only_plots_that_were_drawn_are_shown(made):
    result = made(rounds("stage: inflate", "test_inflate", [1.0]))
    assert "![" not in page(result)
    assert "](performance/stages.svg)" in page(result, {"stages"})


def test_the_table_for_a_terminal_has_every_figure(made):
    text = table(made(socket(2, 30.0, 9_999), rounds("stage: inflate", "test_inflate", [1.0, 1.2, 1.3])))
    assert line(text, "whole: socket").split()[-2:] == ["31.00", "9,999"]
    assert line(text, "stage: inflate").split()[-2:] == ["1.00", "20%"]
