"""The views of ``query``: one set of columns whatever files there are, and what an hour's row says."""

from __future__ import annotations

import datetime as dt

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collector.commands.query_views import VIEWS, define_views, definitions
from collector.decoder.schema import CONNECTIONS_SCHEMA, HITS_SCHEMA, REJECTS_SCHEMA
from collector.errors import NewerVersionError

SCHEMAS = {"hits": HITS_SCHEMA, "rejects": REJECTS_SCHEMA, "connections": CONNECTIONS_SCHEMA}
LATENESS_S = 900


def at(hour: int, minute: int = 0, second: int = 0) -> dt.datetime:
    return dt.datetime(2026, 11, 20, tzinfo=dt.UTC) + dt.timedelta(hours=hour, minutes=minute, seconds=second)


class Folder:
    """Parts in the collector's places, with the columns that a test cares about."""

    def __init__(self, path) -> None:
        self.path = path
        self._count = 0

    def add(self, kind: str, moment: dt.datetime, rows: list[dict], *, stream: str = "shop") -> None:
        schema = SCHEMAS[kind]
        folder = self.path / kind / "v=1" / f"stream={stream}" / f"date={moment.date()}"
        folder /= f"hour={moment:%H}" if kind == "hits" else ""
        folder.mkdir(parents=True, exist_ok=True)
        self._count += 1
        columns = {name: [row.get(name) for row in rows] for name in schema.names}
        pq.write_table(pa.table(columns, schema=schema), folder / f"part-{self._count}.parquet")

    def hit(self, received: dt.datetime, *, collected: dt.datetime | None = None, **more) -> None:
        self.add("hits", received, [{"received_at": received, "collected_at": collected or received}], **more)

    def held(self, began: dt.datetime, ended: dt.datetime, *, resends: int = 0) -> None:
        row = {"kind": "connection", "began_at": began, "ended_at": ended, "resends": resends}
        self.add("connections", began, [row])

    def gap(self, began: dt.datetime, ended: dt.datetime, suspected: str) -> None:
        row = {"kind": "gap", "began_at": began, "ended_at": ended, "suspected_gap": suspected}
        self.add("connections", began, [row])

    def query(self, sql: str, lateness_s: float = LATENESS_S) -> list[tuple]:
        with duckdb.connect() as database:
            define_views(database, self.path, lateness_s)
            return database.execute(sql).fetchall()

    def hours(self, columns: str, lateness_s: float = LATENESS_S) -> dict[str, tuple]:
        rows = self.query(f"SELECT hour, {columns} FROM hours ORDER BY date, hour", lateness_s)
        assert len({hour for hour, *_ in rows}) == len(rows)
        return {hour: tuple(rest) for hour, *rest in rows}


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "output")


def types(database, view: str) -> list[tuple[str, str]]:
    relation = database.sql(f"FROM {view}")
    return list(zip(relation.columns, map(str, relation.types), strict=True))


def count_in(database, view: str) -> int:
    return database.execute(f"SELECT count(*) FROM {view}").fetchone()[0]


def test_columns_and_types_do_not_depend_on_files(folder):
    """Empty views have what full ones have: the schema's columns, then stream, date and hour."""
    with duckdb.connect() as database:
        define_views(database, folder.path)
        empty = {view: types(database, view) for view in VIEWS}
        assert {count_in(database, view) for view in VIEWS} == {0}
        folder.hit(at(10))
        folder.held(at(11), at(12))
        folder.add("rejects", at(10), [{"raw": b"x", "collected_at": at(10)}])
        define_views(database, folder.path)
        assert {view: types(database, view) for view in VIEWS} == empty
        assert {count_in(database, view) for view in VIEWS} == {1, 2}
    for kind, schema in SCHEMAS.items():
        names = [name for name, _ in empty[kind]]
        assert names == [*schema.names, "stream", "date", "hour"]
        assert empty[kind][-3:] == [("stream", "VARCHAR"), ("date", "DATE"), ("hour", "VARCHAR")]


@pytest.mark.parametrize("hour", [9, 23])
def test_hours_are_text_with_and_without_leading_zeros(folder, hour):
    """DuckDB itself takes the hour for a number where none has a zero in front."""
    folder.hit(at(hour), stream="12345")
    assert folder.query("SELECT stream, date, hour FROM hits") == [
        ("12345", dt.date(2026, 11, 20), f"{hour:02}")
    ]


def test_the_folders_own_path_means_nothing(tmp_path):
    """Quotes, wildcards and equals signs in it are neither patterns nor columns."""
    folder = Folder(tmp_path / "it's [a-z]*?" / "env=prod" / "out")
    folder.hit(at(9))
    assert folder.query("SELECT count(*) FROM hits") == [(1,)]
    with duckdb.connect() as database:
        define_views(database, folder.path)
        assert "env" not in database.sql("FROM hits").columns


def test_the_definitions_are_sql_for_any_duckdb(folder):
    """As ``.schema`` shows them."""
    folder.hit(at(9))
    with duckdb.connect() as database:
        statements = definitions(database, folder.path, 60)
    with duckdb.connect() as other:
        for statement in statements:
            other.execute(statement)
        assert other.execute("SELECT hour, hits FROM hours").fetchall() == [("09", 1)]


def test_output_of_a_newer_version_is_not_left_out_silently(folder):
    """Part of the rows would pass for all of them."""
    (folder.path / "hits" / "v=2").mkdir(parents=True)
    with duckdb.connect() as database, pytest.raises(NewerVersionError, match="use a newer one"):
        define_views(database, folder.path)


def test_an_hour_is_there_for_whatever_it_has(folder):
    """Hits, rejects, a silent connection or nothing but a gap; streams are kept apart."""
    folder.hit(at(9))
    folder.hit(at(9), stream="other")
    folder.add("rejects", at(10), [{"collected_at": at(10, 59, 59)}, {"collected_at": at(11)}])
    folder.held(at(12), at(13), resends=7)
    folder.gap(at(13, 30), at(14, 30), "likely")
    rows = folder.query("SELECT stream, hour, hits, rejects, resends, gaps FROM hours")
    assert rows == [
        ("other", "09", 1, 0, None, 0),
        ("shop", "09", 1, 0, None, 0),
        ("shop", "10", 0, 1, None, 0),
        ("shop", "11", 0, 1, None, 0),
        ("shop", "12", 0, 0, 7, 0),
        ("shop", "13", 0, 0, None, 1),
        ("shop", "14", 0, 0, None, 1),
    ]


def test_a_gap_is_spread_over_the_hours_it_touches(folder):
    """Its seconds add up to its length; the worst suspicion counts; midnight is no border."""
    folder.gap(at(22, 30), at(24, 15), "possible")
    folder.gap(at(22, 50), at(23, 0), "likely")
    assert folder.hours("gaps, gap_s, suspected_gap") == {
        "22": (2, 1800 + 600, "likely"),
        "23": (1, 3600, "possible"),
        "00": (1, 900, "possible"),
    }
    assert folder.query("SELECT min(date), max(date) FROM hours")[0][1] == dt.date(2026, 11, 21)


def test_an_hour_is_complete_once_the_stream_was_followed_beyond_it(folder):
    """By lateness after its end, whatever the clock says now."""
    folder.hit(at(9, 30))
    folder.hit(at(11, 14, 59))
    assert folder.hours("complete") == {"09": (True,), "11": (False,)}
    assert folder.hours("complete", lateness_s=4500) == {"09": (False,), "11": (False,)}
    folder.hit(at(10, 5))
    assert folder.hours("complete")["10"] == (False,)
    folder.hit(at(11, 15))
    assert folder.hours("complete") == {"09": (True,), "10": (True,), "11": (False,)}


def test_a_connection_without_hits_moves_it_on_too(folder):
    """A quiet night ends, although nothing came."""
    folder.hit(at(9, 30))
    folder.held(at(10), at(11))
    assert folder.hours("complete") == {"09": (True,), "10": (False,)}


def test_a_visitor_in_the_future_completes_nothing(folder):
    """The service's time is believed no further than the collector's own."""
    folder.hit(at(9, 30))
    folder.hit(at(20), collected=at(9, 31))
    assert folder.hours("complete")["09"] == (False,)


def test_hours_do_not_depend_on_the_time_zone_of_the_session(folder):
    """A zone half an hour off would cut hours elsewhere."""
    folder.gap(at(9, 50), at(10, 10), "no")
    with duckdb.connect() as database:
        define_views(database, folder.path)
        for zone in ("UTC", "Asia/Kolkata"):
            database.execute(f"SET TimeZone = '{zone}'")
            found = database.execute("SELECT hour, gap_s FROM hours").fetchall()
            assert found == [("09", 600.0), ("10", 600.0)]
