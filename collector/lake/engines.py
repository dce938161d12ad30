"""Where the expression runs: DuckDB in this process, or Spark.

Used by ``compact``. Invariant: an engine reads one table of places and gives back every row of the hour
once, in the expression's order; it never sees a part.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from collector.errors import ConfigurationError, NoSpaceError, StorageError
from collector.lake.expression import PLACES, statement
from collector.storage.fs import Disk

BATCH_ROWS: Final = 1 << 16

_DUCKDB_OVERHEAD_BYTES: Final = 400 << 20
"""What DuckDB takes beside its limit, and Python with Arrow. Source: bench/compacting.py."""

_DUCKDB_LEAST_BYTES: Final = 96 << 20
_NO_SPACE: Final = ("No space left", "max_temp_directory_size", "disk full")
_DOUBLE: Final = ("file", "row", "double")


class Engine(Protocol):
    """What ``compact`` needs of one."""

    def judged(self, places: Path) -> Iterator[pa.RecordBatch]:
        """Columns ``file``, ``row``, ``double``. *Blocks* until all rows are judged, then streams.

        ``places`` is a Parquet file in the scratch folder. *Raises* NoSpaceError, StorageError,
        ConfigurationError.
        """

    def close(self) -> None: ...


class DuckDbEngine:
    """In this process, out of core: what does not fit goes to ``scratch``."""

    def __init__(self, scratch: Path, memory_bytes: int) -> None:
        import duckdb  # noqa: PLC0415 - of the extra

        self._duckdb = duckdb
        self._config: dict[str, Any] = {
            "memory_limit": f"{max(memory_bytes - _DUCKDB_OVERHEAD_BYTES, _DUCKDB_LEAST_BYTES)}B",
            "threads": len(os.sched_getaffinity(0)),
            "temp_directory": str(scratch / "spill"),
            "preserve_insertion_order": False,
        }

    def judged(self, places: Path) -> Iterator[pa.RecordBatch]:
        with contextlib.closing(self._duckdb.connect(config=self._config)) as connection, self._translated():
            connection.read_parquet(str(places)).create_view(PLACES)
            yield from connection.sql(statement("duckdb")).to_arrow_reader(BATCH_ROWS)

    def close(self) -> None:
        pass

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._duckdb.OutOfMemoryException as error:
            first = str(error).partition("\n")[0]
            if any(text in first for text in _NO_SPACE):
                raise NoSpaceError(f"DuckDB found no room to spill: {first}") from error
            raise ConfigurationError(
                f"DuckDB cannot judge this hour in the memory it was given ({first}): give more with --memory"
            ) from error
        except self._duckdb.Error as error:
            first = str(error).partition("\n")[0]
            kind = NoSpaceError if any(text in first for text in _NO_SPACE) else StorageError
            raise kind(f"DuckDB failed: {first}") from error


class SparkEngine:
    """An existing cluster (``SPARK_REMOTE``, else ``SPARK_MASTER``), or local mode.

    The scratch folder must be on a file system that the executors see under the same path.
    """

    def __init__(self, disk: Disk) -> None:
        from pyspark.sql import SparkSession  # noqa: PLC0415 - of the extra

        self._disk = disk
        builder = SparkSession.builder.appName("livestream-collector compact")
        for name, value in {
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        }.items():
            builder = builder.config(name, value)
        if remote := os.environ.get("SPARK_REMOTE"):
            builder = builder.remote(remote)
        else:
            builder = builder.master(os.environ.get("SPARK_MASTER", "local[*]"))
            builder = builder.config("spark.ui.enabled", "false").config("spark.log.level", "ERROR")
            builder = builder.config("spark.ui.showConsoleProgress", "false")
        try:
            self._session = builder.getOrCreate()
        except Exception as error:
            raise ConfigurationError(
                f"Spark does not start: {error}; SPARK_REMOTE or SPARK_MASTER name a cluster, local mode"
                " needs a Java runtime"
            ) from error

    def judged(self, places: Path) -> Iterator[pa.RecordBatch]:
        session, result = self._session, places.with_name("judged")
        try:
            session.read.parquet(str(places)).createOrReplaceTempView(PLACES)
            judged = session.sql(statement("pyspark"))
            judged.write.mode("overwrite").parquet(str(result))
        except Exception as error:  # its own, py4j's, gRPC's: all end the same way
            raise StorageError(f"Spark failed: {str(error).partition(chr(10))[0]}") from error
        # One file for each range of the order, numbered in its sequence.
        for name in self._disk.listdir(result):
            if name.startswith("part-"):
                yield from pq.ParquetFile(result / name).iter_batches(BATCH_ROWS, columns=list(_DOUBLE))

    def close(self) -> None:
        self._session.stop()
