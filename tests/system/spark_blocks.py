"""Run by the environment of Spark: the blocks on stdin, their rows on stdout, both as JSON."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import sys


def plain(value):
    if isinstance(value, dt.datetime):  # Spark gives local time; the test sets TZ to UTC
        return value.replace(tzinfo=dt.UTC).isoformat()
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, decimal.Decimal) and value == int(value):
        return int(value)
    return float(f"{value:.9g}") if isinstance(value, float) else value


def main() -> None:
    asked = json.load(sys.stdin)
    scope: dict = {}
    exec(asked["setup"], scope)
    spark = scope["spark"]
    try:
        rows = {
            heading: [[plain(value) for value in row] for row in spark.sql(sql).collect()]
            for heading, sql in asked["recipes"].items()
        }
    finally:
        spark.stop()
    json.dump(rows, sys.stdout)


main()
