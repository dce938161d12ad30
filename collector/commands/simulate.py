"""``livestream-collector simulate``: a simulated Livestream until a signal ends it.

Runs as the command's own process. Invariant: the first line of stdout is the stream's URL, and
nothing listens anywhere but on loopback.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import uvloop

from collector.errors import ExitCode
from collector.simulator.scenario import load
from collector.simulator.server import Simulator
from collector.simulator.settings import GhostStatus, Resume, SimulatorSettings


def run(
    *,
    port: int = 0,
    hits_per_second: float = 100.0,
    total: int | None = None,
    seed: int = 0,
    scenario: Path | None = None,
    file: Path | None = None,
    **service: Any,
) -> int:
    """Serve until SIGTERM or SIGINT; the exit code.

    ``service``: any other field of ``SimulatorSettings``; ``None`` leaves it to the scenario's
    ``[service]``, then to the default. *Raises* ``ConfigurationError``. *Blocks* until a signal.
    """
    given: dict[str, Any] = {}
    if scenario is not None:
        played = load(scenario)
        given = dict(played.service) | {"rules": played.rules}
    given |= {name: value for name, value in service.items() if value is not None}
    given |= {"port": port, "hits_per_second": hits_per_second, "total": total, "seed": seed, "file": file}
    given |= {
        name: kind(given[name])
        for name, kind in (("resume", Resume), ("ghost_status", GhostStatus))
        if name in given
    }
    uvloop.run(_serve(SimulatorSettings(**given)))
    return ExitCode.DONE


async def _serve(settings: SimulatorSettings) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with Simulator(settings) as service:
        print(service.url, flush=True)
        await ended.wait()
