"""What one simulated service is: its credentials, its hits, its ghosts and its pace.

Read by every module of the simulator; the command and in-process tests make it. Invariant: a
``SimulatorSettings`` that exists has only values the service can act on.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from pathlib import Path

from collector.errors import ConfigurationError
from collector.simulator.scenario import Rule


class Resume(enum.StrEnum):
    """Where the stream goes on after a reconnect within the backfill window."""

    OVERLAP = "overlap"
    """Sends the hits of the last ``overlap_s`` seconds again, and whatever was not acknowledged."""
    EXACT = "exact"
    """At the first hit whose bytes the client's kernel had not all acknowledged."""
    LOSSY = "lossy"
    """At the first hit never handed to a socket: what was in flight is gone."""


class GhostStatus(enum.StrEnum):
    """What a client gets while a ghost holds the slot it wants."""

    ALTERNATE = "alternate"
    CONFLICT = "409"
    UNAVAILABLE = "503"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSettings:
    """One simulated service. Defaults are the real one's where it has one.

    *Raises* ``ConfigurationError``, naming all faults at once.
    """

    port: int = 0
    """0: any free port. Always on loopback."""
    stream: str = "demo-stream"

    hits_per_second: float = 100.0
    """0: as fast as the socket takes them. Hits are made from the first stream's opening on."""
    total: int | None = None
    """Distinct hits in all; then the stream stays open and silent."""
    seed: int = 0
    start_s: int | None = None
    """Unix seconds of ``receivedTimeGMT`` where hits begin; ``None``: now."""
    hours: float = 0.0
    """Begin this many hours earlier and squeeze them into the first hits (``total``, or 100,000)."""
    file: Path | None = None
    """Stream these lines instead of made-up hits."""

    token: str | None = "simulator-token"  # noqa: S105 - the local stand-in's
    """Accepted besides what the token endpoint handed out; ``None``: any bearer token is."""
    api_key: str | None = "simulator-key"
    """``None``: any."""
    client_id: str = "simulator-client"
    client_secret: str = "simulator-secret"  # noqa: S105 - the local stand-in's
    token_expires_s: int = 86_399

    resume: Resume = Resume.OVERLAP
    ghost_s: float = 60.0
    ghost_status: GhostStatus = GhostStatus.ALTERNATE
    backfill_window_s: float = 300.0
    overlap_s: float = 10.0

    heartbeat_s: float = 5.0
    """An empty line after this much silence; 0: never."""
    chunk_bytes: int = 16_384
    """Chunks are this long on average; where they end is drawn anew each time."""
    redirect: bool = False
    """Answer 302 to a second port, which has the stream."""
    needs_enabling: bool = False
    """Answer 424 until ``/api/2/enable/<stream>`` was asked for."""
    enable_after_s: float = 0.0
    """How long enabling takes; 15 minutes at the real service."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    rules: tuple[Rule, ...] = ()
    """The scenario: the first rule that matches a request decides what happens to it."""
    control: bool = False
    """Serve ``/control/state`` and ``/control/cut``."""
    log: Path | None = None
    """Append one JSON line per request answered and one per stream ended."""

    def __post_init__(self) -> None:
        faults = [text for wrong, text in self._checks() if wrong]
        if faults:
            raise ConfigurationError("simulator: " + "; ".join(faults))

    def _checks(self) -> list[tuple[bool, str]]:
        periods = ("ghost_s", "backfill_window_s", "overlap_s", "heartbeat_s", "enable_after_s", "hours")
        return [
            (not 0 <= self.port < 65536, f"port is {self.port}, must be 0 to 65535"),
            (
                not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.stream),
                f"stream is {self.stream!r}, must be 1 to 64 of A-Z a-z 0-9 _ -",
            ),
            (
                not 0 <= self.hits_per_second < 1e9,
                f"hits_per_second is {self.hits_per_second}, must be 0 or more",
            ),
            (self.total is not None and self.total < 0, f"total is {self.total}, must be 0 or more"),
            (self.chunk_bytes < 1, f"chunk_bytes is {self.chunk_bytes}, must be 1 or more"),
            (self.token_expires_s < 1, f"token_expires_s is {self.token_expires_s}, must be 1 or more"),
            ((self.tls_cert is None) != (self.tls_key is None), "tls_cert and tls_key belong together"),
            *(
                (not 0 <= getattr(self, name) < 1e9, f"{name} is {getattr(self, name)}, must be 0 or more")
                for name in periods
            ),
        ]
