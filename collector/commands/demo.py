"""``livestream-collector demo``: the whole main job on this machine, then what the Parquet says.

Starts ``simulate`` and ``run`` as processes of their own, has the service cut the connection once,
waits the cut out as the collector would at the real service (with a shorter floor), and then reads
nothing but the Parquet.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from collector.errors import ChildFailedError, ConfigurationError, ExitCode, VerificationError

HITS_PER_SECOND: Final = 500
WAIT_S: Final = 5.0
"""The floor of the demo; at the real service it is 60 s."""

GHOST_S: Final = 4.5
SEED: Final = 20
PART_AGE_S: Final = 5.0
LONGEST_OVERRUN_S: Final = 90.0

SCENARIO: Final = f"""
[service]
ghost_s = {GHOST_S}
overlap_s = 2.0

[[rule]]
requests = "1"
cut = {{{{ after_s = {{cut_after_s}}, how = "rst" }}}}
"""


def run(*, seconds: float, output: Path | None) -> int:
    """*Raises* VerificationError when a hit is missing or doubled."""
    import duckdb  # noqa: PLC0415 - an extra; asked for before anything is started

    folder = _output_folder(output)
    total = round(HITS_PER_SECOND * seconds)
    print(
        f"A simulated Livestream sends {total:,} hits at {HITS_PER_SECOND} a second and cuts the connection"
        f" after {seconds / 3:.0f} s.\n"
        f"The collector waits {WAIT_S:g} s before it connects again: the demo shortens the floor, which is"
        " 60 s at the real service.\n"
        f"Output: {folder}\n",
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="livestream-demo-") as scratch:
        scenario = Path(scratch) / "scenario.toml"
        scenario.write_text(SCENARIO.format(cut_after_s=seconds / 3))
        with _simulator(scenario, total) as url:
            _collect(url, folder, total, seconds + LONGEST_OVERRUN_S)
    with duckdb.connect() as database:
        return _summary(database, folder, total)


def _output_folder(output: Path | None) -> Path:
    if output is None:
        return Path(tempfile.mkdtemp(prefix="livestream-demo-output-"))
    if output.exists() and any(output.iterdir()):
        raise ConfigurationError(f"{output} is not empty: the demo wants a new or an empty folder")
    return output


@contextmanager
def _simulator(scenario: Path, total: int) -> Iterator[str]:
    command = [sys.executable, "-m", "collector", "simulate", "--scenario", str(scenario)]
    command += ["--hits-per-second", str(HITS_PER_SECOND), "--total", str(total), "--seed", str(SEED)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as simulator:
        try:
            assert simulator.stdout is not None  # noqa: S101 - it is a pipe
            url = simulator.stdout.readline().strip()
            if not url:
                raise ChildFailedError("the simulator did not start; its message is above")
            yield url
        finally:
            simulator.terminate()


def _collect(url: str, folder: Path, total: int, longest_s: float) -> None:
    command = [sys.executable, "-m", "collector", "run", "--url", url, "--output", str(folder)]
    command += ["--stop-after-hits", str(total), "--stop-after", str(longest_s)]
    command += ["--set", f"reconnect.wait_s={WAIT_S}", "--set", f"parts.max_age_s={PART_AGE_S}"]
    command += ["--set", "status.listen=127.0.0.1:0"]
    environment = os.environ | {
        "LIVESTREAM_TOKEN": "simulator-token",
        "LIVESTREAM_CLIENT_ID": "simulator-key",
    }
    for name in ("LIVESTREAM_CLIENT_SECRET", "LIVESTREAM_TOKEN_FILE", "LIVESTREAM_CLIENT_ID_FILE"):
        environment.pop(name, None)
    with subprocess.Popen(command, env=environment) as collector:
        try:
            code = collector.wait()
        except KeyboardInterrupt:  # it reached the collector too, which drains
            code = collector.wait()
    if code != ExitCode.DONE:
        raise ChildFailedError(f"the collector ended with exit code {code}; its message is above")


# ---------------------------------------------------------------- what the Parquet says

MINUTES: Final = """
SELECT strftime(date_trunc('minute', received_at), '%Y-%m-%d %H:%M') AS minute, count(*) AS hits,
       count(*) FILTER (purchaseId <> '') AS purchases
FROM hits GROUP BY 1 ORDER BY 1
"""
PAGES: Final = "SELECT pageName AS page, count(*) AS hits FROM hits GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 5"
GAPS: Final = """
SELECT strftime(began_at, '%H:%M:%S') AS "from", strftime(ended_at, '%H:%M:%S') AS "to",
       round(epoch(ended_at - began_at), 1) AS seconds, reason,
       suspected_gap AS "hits missed?", suspected_gap_rule AS why
FROM connections WHERE kind = 'gap' ORDER BY began_at
"""
CONNECTIONS: Final = (
    "SELECT sum(hits)::BIGINT, sum(resends)::BIGINT FROM connections WHERE kind = 'connection'"
)


def _summary(database: Any, folder: Path, total: int) -> int:
    from rich.console import Console  # noqa: PLC0415 - 0.1 s that --help must not pay

    from collector.commands.query_views import define_views  # noqa: PLC0415 - pyarrow as well

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    database.execute("SET TimeZone = 'UTC'")
    define_views(database, folder)
    for title, query in (
        ("Hits per minute", MINUTES),
        ("Top pages", PAGES),
        ("The gap it lived through", GAPS),
    ):
        console.print(_table(title, database.execute(query)))
    rows, distinct, missing = _counts(database, total)
    _, resends = database.execute(CONNECTIONS).fetchone()
    doubled = rows - distinct
    console.print(
        f"{rows:,} rows of {total:,} hits sent: missing {missing}, doubled {doubled}"
        f" ({resends:,} hits that the service sent again were dropped)"
    )
    console.print(
        f"Query it yourself: {_program()} query --output {shlex.quote(str(folder))}", soft_wrap=True
    )
    if missing or doubled:
        raise VerificationError(f"missing {missing}, doubled {doubled}")
    return ExitCode.DONE


def _counts(database: Any, total: int) -> tuple[int, int, int]:
    """Rows, distinct hits among them, and how many of the ``total`` that were sent are not there."""
    import numpy as np  # noqa: PLC0415

    from collector.simulator.hits import indices_of  # noqa: PLC0415

    ids = database.execute(
        "SELECT hitIdHigh::UBIGINT AS high, hitIdLow::UBIGINT AS low FROM hits"
    ).fetchnumpy()
    found = np.unique(indices_of(SEED, ids["high"], ids["low"]))
    return len(ids["high"]), len(found), total - int(np.count_nonzero((found >= 0) & (found < total)))


def _table(title: str, result: Any) -> Any:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title=title, title_justify="left")
    for name in (column[0] for column in result.description):
        table.add_column(name)
    for row in result.fetchall():
        table.add_row(*(Text(f"{value:,}" if isinstance(value, int) else str(value)) for value in row))
    return table


def _program() -> str:
    """How to call it again: the environment of scripts/demo has no command for it."""
    if shutil.which("livestream-collector"):
        return "livestream-collector"
    return f"{shlex.quote(os.path.relpath(sys.executable))} -m collector"
