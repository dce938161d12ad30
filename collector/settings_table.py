"""Every setting, once: section, key, kind, default, unit, bounds and meaning.

Imported by whoever loads or documents settings. The classes below are the table: a field's
metadata is its ``Spec``, and ``collector.settings`` fills the frozen objects from the layers.
A number's unit is in its name: ``_s`` seconds, ``_days`` days, ``_bytes`` bytes.
"""

# ruff: noqa: RUF009 - ``setting`` is ``dataclasses.field``

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_type_hints

from collector.settings_kinds import GIB, KIB, MIB, TIB, Kind, Spec, setting
from collector.settings_lake import Compact, Retention, Ship, Table


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """The endpoint."""

    url: str = setting(
        Kind.URL,
        None,
        "The stream's address, ending in its name. Its own query is kept. Required by `run`. Plain `http://` "
        "is accepted for loopback hosts only.",
        flag="--url",
    )
    name: str = setting(
        Kind.NAME,
        None,
        "What the stream is called in paths. By default the last path segment of `stream.url`, else the only "
        "one in the output folder's `.state` (`decode`: `files`).",
        flag="--stream",
    )
    max_connections: int = setting(
        Kind.COUNT,
        1,
        "Sent as `maxConnections`: the same value on every client of the stream.",
        minimum=1,
        maximum=8,
    )
    allowed_hosts: tuple[str, ...] = setting(
        Kind.HOSTS,
        None,
        "Hosts a redirect may lead to: these names and whatever is below them. By default the host of "
        "`stream.url`, `adobe.net` and `adobe.com`.",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """Where tokens come from; the secrets themselves come from the environment or from files."""

    token_url: str = setting(
        Kind.URL,
        "https://ims-na1.adobelogin.com/ims/token/v3",
        "The token endpoint of OAuth Server-to-Server. Not used with a static token.",
    )
    scope: str = setting(
        Kind.TEXT,
        "openid,AdobeID,additional_info.projectedProductContext",
        "The scopes asked for, as the project in the Adobe Developer Console lists them.",
    )
    token_file: Path | None = setting(
        Kind.PATH,
        None,
        "A file that holds the token, as `LIVESTREAM_TOKEN_FILE` names one. It is read before each request, "
        "so something else may renew it: best by a rename. Readable by the collector's user alone (`chmod "
        "600`).",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect:
    """When the next request may be sent."""

    wait_s: float = setting(
        Kind.SECONDS,
        60.0,
        "The floor: no request within this time of the last moment a connection was, or may have been, held. "
        "All waits are multiples of it. Below 60 for loopback hosts only.",
        minimum=0.05,
        maximum=3600,
    )
    on_refusal: Literal["exit", "retry"] = setting(
        Kind.CHOICE,
        "exit",
        "After a refusal that waiting does not cure (400, 404, 405, 406, 424, 505): leave with exit code 3, "
        "or ask again every 15 x `wait_s`.",
        choices=("exit", "retry"),
    )
    idle_timeout_s: float | Literal["auto"] = setting(
        Kind.SECONDS_OR_AUTO,
        "auto",
        "How long a connection may be silent before it counts as broken. `auto`: 300 where the ten minutes "
        "before averaged a hit a second, else 3600, doubled for each connection that brought nothing.",
        minimum=0.1,
        maximum=86_400,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """When a batch is closed and becomes visible as Parquet."""

    max_age_s: float = setting(
        Kind.SECONDS, 60.0, "A batch is closed at this age.", minimum=0.1, maximum=86_400
    )
    max_bytes: int = setting(
        Kind.SIZE, GIB, "A batch is closed at this many bytes of journal.", minimum=64 * KIB, maximum=64 * GIB
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """What was accepted and is not yet in Parquet."""

    durability: Literal["disk", "memory"] = setting(
        Kind.CHOICE,
        "disk",
        "`disk` survives the host; `memory` (/dev/shm) survives every process, not the host. For `decode` "
        "the default is `memory`.",
        choices=("disk", "memory"),
    )
    max_bytes: int = setting(
        Kind.SIZE,
        8 * GIB,
        "At this size the transfer is paused until parts are committed. For `decode` the default is 2 GiB.",
        minimum=256 * KIB,
        maximum=16 * TIB,
    )
    reserve_bytes: int = setting(
        Kind.SIZE,
        GIB,
        "With less than this free on the disk the transfer is paused.",
        minimum=0,
        maximum=16 * TIB,
    )
    max_record_bytes: int = setting(
        Kind.SIZE,
        16 * MIB,
        "A longer record becomes one reject with its first MiB, length and hash.",
        minimum=KIB,
        maximum=256 * MIB,
    )
    segment_bytes: int = setting(
        Kind.SIZE,
        64 * MIB,
        "Size of one segment file, a multiple of 4 KiB. For `decode` the default is 16 MiB.",
        minimum=64 * KIB,
        maximum=GIB,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decode:
    """How records become rows."""

    kernel: Literal["auto", "off"] = setting(
        Kind.CHOICE,
        "auto",
        "`auto` decodes with the compiled kernel where it was built; `off` the plain way, which gives "
        "the same rows for about twice the CPU time in all.",
        choices=("auto", "off"),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """What never reaches a part, wherever in a hit it stands: see [privacy.md](privacy.md).

    The journal holds hits as they were sent until they are committed, and some while longer. With either list
    rejects keep only reason, length and SHA-256 of the record.
    """

    drop: tuple[str, ...] = setting(
        Kind.FIELDS, (), "These are left out of every part, out of `extra` too. An example: `ip`."
    )
    hash: tuple[str, ...] = setting(
        Kind.TEXT_FIELDS,
        (),
        "Instead of these stands their HMAC-SHA-256 in hexadecimal, with the key in "
        "`LIVESTREAM_PRIVACY_KEY` or in the file that `LIVESTREAM_PRIVACY_KEY_FILE` names.",
    )

    @property
    def hides(self) -> bool:
        return bool(self.drop or self.hash)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Resends:
    """How long a hit's id is remembered, so that the service's duplicates are dropped."""

    window_s: float = setting(
        Kind.SECONDS, 1800.0, "In seconds of held connection.", minimum=0, maximum=604_800
    )
    max_ids: int = setting(
        Kind.COUNT,
        30_000_000,
        "At most this many ids are kept, 16 bytes each on disk; reaching it before `window_s` is logged.",
        minimum=1000,
        maximum=2_000_000_000,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Processes."""

    decoders: int = setting(Kind.COUNT, 2, "Decoder processes.", minimum=1, maximum=64, flag="--decoders")
    drain_s: float = setting(
        Kind.SECONDS,
        10.0,
        "How long a drain may take; what is left stays durable in the journal.",
        minimum=0,
        maximum=3600,
    )
    heartbeat_limit_s: float = setting(
        Kind.SECONDS,
        30.0,
        "How long a child may give no sign of life before it is ended and replaced. Waiting for the disk "
        "is no fault of it and only reported.",
        minimum=3,
        maximum=3600,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where Parquet goes."""

    folder: Path = setting(Kind.PATH, None, "The output folder. Required.", flag="--output")
    mode: int = setting(Kind.MODE, 0o644, "File mode of parts.", minimum=0o400, maximum=0o777)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the collector itself keeps."""

    folder: Path = setting(
        Kind.PATH,
        None,
        "By default `.state/NAME` in the output folder (`decode`: `.state/NAME.files`). On the same file "
        "system as the output.",
        flag="--state",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The status page."""

    listen: str = setting(
        Kind.ADDRESS,
        "127.0.0.1:9464",
        "Where the status page, `/metrics`, `/healthz` and `/readyz` are served; `off`: nowhere. They have "
        "no password: with another address than loopback, whoever reaches it can read them. If the port is "
        "taken the collector says so and runs without. `livestream-collector status` needs none of it: it "
        "asks by `status.sock` in the state folder.",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Certificates are always checked."""

    ca_file: Path | None = setting(
        Kind.PATH,
        None,
        "CA bundle in PEM. By default `SSL_CERT_FILE`, else the distribution's, else certifi's.",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """The way out to stream and token endpoint. Hosts in `NO_PROXY`, and loopback, are reached directly.

    The password comes from `LIVESTREAM_PROXY_PASSWORD` or the file in `LIVESTREAM_PROXY_PASSWORD_FILE` only.
    """

    url: str | None = setting(
        Kind.URL,
        None,
        "An HTTP proxy that takes CONNECT: `http://host:port`, or `https://` for TLS up to the proxy. By "
        "default what `HTTPS_PROXY` says (`http://user:password@host:port` there), else none.",
    )
    user: str | None = setting(Kind.TEXT, None, "The user name for the proxy, where it wants one.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Looking at the output with `query`."""

    lateness_s: float = setting(
        Kind.SECONDS,
        900.0,
        "In the view `hours` an hour is complete once its stream was followed this far beyond its end.",
        minimum=0,
        maximum=31 * 86_400,
        flag="--lateness",
    )
    memory_bytes: int = setting(
        Kind.SIZE,
        2 * GIB,
        "What a query may hold in memory; what is beyond goes into temporary files.",
        minimum=64 * MIB,
        maximum=16 * TIB,
    )
    threads: int | None = setting(
        Kind.COUNT, None, "Threads of a query. By default one for each core.", minimum=1, maximum=1024
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Lines on stderr."""

    format: Literal["console", "json"] = setting(
        Kind.CHOICE,
        "console",
        "`console`: `key=value` lines (on a terminal a live view); `json`: one object a line.",
        choices=("console", "json"),
        flag="--log-format",
    )
    level: Literal["debug", "info", "warning", "error"] = setting(
        Kind.CHOICE,
        "info",
        "Events below this level are not written.",
        choices=("debug", "info", "warning", "error"),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a run depends on, checked and complete. Made by ``collector.settings.load_settings``."""

    stream: Stream
    auth: Auth
    reconnect: Reconnect
    parts: Parts
    journal: Journal
    decode: Decode
    privacy: Privacy
    resends: Resends
    run: Run
    output: Output
    state: State
    retention: Retention
    status: Status
    tls: Tls
    proxy: Proxy
    query: Query
    ship: Ship
    table: Table
    compact: Compact
    log: Log


SECTIONS: Final[Mapping[str, type[Any]]] = get_type_hints(Settings)

SPECS: Final[Mapping[str, Spec]] = {
    f"{section}.{field.name}": field.metadata["spec"]
    for section, group in SECTIONS.items()
    for field in dataclasses.fields(group)
}
"""Every setting by its full name, ``section.key``."""


def environment_name(key: str) -> str:
    """``journal.max_bytes`` is ``LIVESTREAM_JOURNAL__MAX_BYTES``."""
    section, name = key.split(".")
    return f"LIVESTREAM_{section.upper()}__{name.upper()}"
