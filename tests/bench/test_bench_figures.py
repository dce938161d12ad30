from __future__ import annotations

import pytest

from bench.figures import ResultError, newest, read
from tests.bench.made_results import record, rounds, write


def test_rounds_of_one_benchmark_are_one_figure(tmp_path):
    """The cost is the least of the rounds; what was parametrized beside the round tells figures apart."""
    path = write(
        tmp_path / "r.json",
        rounds("peer: file to Parquet", "test_peers", [24.0, 22.0, 23.0], peer="clickhouse"),
        rounds("peer: file to Parquet", "test_peers", [45.0, 46.0, 47.0], peer="duckdb"),
    )
    clickhouse, duckdb = read(path).figures
    assert (clickhouse.label, clickhouse.cost_us, clickhouse.costs_us) == (
        "clickhouse",
        22.0,
        (24.0, 22.0, 23.0),
    )
    assert (duckdb.label, duckdb.cost_us) == ("duckdb", 45.0)
    assert (duckdb.kind, duckdb.title) == ("peer", "file to Parquet")


def test_spread_is_the_middle_round_against_the_best(tmp_path):
    path = write(tmp_path / "r.json", rounds("stage: inflate", "test_inflate", [10.0, 11.0, 30.0]))
    assert read(path).figures[0].spread == pytest.approx(0.1)


def test_one_round_has_no_spread(tmp_path):
    path = write(tmp_path / "r.json", rounds("stage: inflate", "test_inflate", [10.0]))
    assert read(path).figures[0].spread is None


def test_numbers_are_of_the_best_round_but_bounds_of_the_worst(tmp_path):
    best = {
        "cpu_us_per_hit_reader": 3.0,
        "hits_per_s": 100.0,
        "peak_bytes": 10,
        "durable_p99_s": 0.1,
        "written_bytes": 7,
    }
    worst = {
        "cpu_us_per_hit_reader": 2.0,
        "hits_per_s": 120.0,
        "peak_bytes": 20,
        "durable_p99_s": 0.4,
        "written_bytes": 9,
    }
    path = write(
        tmp_path / "r.json",
        [
            record("whole: socket", "test_socket", 30.0, 0, best),
            record("whole: socket", "test_socket", 31.0, 1, worst),
        ],
    )
    numbers = read(path).figures[0].numbers
    assert numbers == {
        "hits": 1000,
        "cpu_us_per_hit": 30.0,
        "cpu_us_per_hit_reader": 3.0,
        "written_bytes": 7,
        "hits_per_s": 120.0,
        "peak_bytes": 20,
        "durable_p99_s": 0.4,
    }


def test_find_takes_the_values_of_parameters(tmp_path):
    path = write(
        tmp_path / "r.json",
        rounds("whole: socket", "test_socket", [30.0], decoders=1),
        rounds("whole: socket", "test_socket", [31.0], decoders=2),
    )
    result = read(path)
    assert result.find("whole: socket", 2).cost_us == 31.0
    assert result.find("whole: socket", 3) is None
    assert result.find("whole: nothing") is None


def test_a_result_says_where_it_was_made(tmp_path):
    result = read(write(tmp_path / "r.json", rounds("stage: inflate", "test_inflate", [1.0]), dirty=True))
    assert result.commit == "0123456789ab+"
    assert result.machine == {"processor": "2 x Fast CPU", "system": "Linux 6.1"}
    assert result.versions == {"collector": "1.0", "Python": "3.11.7", "pyarrow": "25.0"}
    assert result.measured_at == "2026-11-24 02:25 UTC"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is no result of scripts/bench"),
        ("[]", "is no result of scripts/bench"),
        ('{"machine_info": {}}', "is no result of scripts/bench"),
        ('{"machine_info": {}, "commit_info": {}, "benchmarks": []}', "has no benchmark in it"),
    ],
)
def test_another_file_is_refused_with_what_was_expected(tmp_path, content, says):
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(ResultError, match=says):
        read(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ResultError, match="cannot be read"):
        read(tmp_path / "none.json")


def test_a_benchmark_without_cost_is_refused_by_name(tmp_path):
    made = record("stage: inflate", "test_inflate", 1.0)
    del made["extra_info"]["cpu_us_per_hit"]
    with pytest.raises(ResultError, match=r"test_inflate\[round0\] has no cpu_us_per_hit"):
        read(write(tmp_path / "r.json", [made]))


def test_the_newest_result_is_the_last_by_name(tmp_path):
    for name in ("20260101T000000Z.json", "20261231T000000Z.json", "20260601T000000Z.json"):
        (tmp_path / name).touch()
    assert newest(tmp_path).name == "20261231T000000Z.json"
    with pytest.raises(ResultError, match="there is no result"):
        newest(tmp_path / "none")
