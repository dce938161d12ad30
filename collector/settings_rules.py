"""What must hold between settings, and the defaults that follow from other settings.

Imported by ``collector.settings``. A rule is asked only when every setting it reads is good by itself.
"""

from __future__ import annotations

import math
import os.path
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from collector import privacy_fields
from collector.settings_kinds import NAME_PATTERN, format_value
from collector.settings_kinds import Kind as _Kind
from collector.settings_table import SPECS
from collector.settings_values import is_loopback

FLOOR_S: Final = 60.0
"""The service's load balancer needs about a minute to notice a broken connection (Adobe KA-16598)."""

_SEGMENT_UNIT_BYTES: Final = 4096

Values = Mapping[str, Any]


def last_segment(url: str) -> str:
    """The last path segment of a stream's address: its endpoint name."""
    return urlsplit(url).path.rpartition("/")[2]


def default_hosts(url: str) -> tuple[str, ...]:
    """Whither a redirect may lead unless the operator says otherwise."""
    host = urlsplit(url).hostname
    return tuple(dict.fromkeys([*([host] if host else []), "adobe.net", "adobe.com"]))


def default_name(url: str | None, output: Path | None) -> tuple[str, str]:
    """The stream's name and "", or "" and what is wrong."""
    if url:
        name = last_segment(url)
        good = re.fullmatch(NAME_PATTERN, name) is not None
        return (name, "") if good else ("", f"the address does not end in {_WANTED}: give --stream NAME")
    names = stream_names(output / ".state") if output is not None else []
    if len(names) == 1:
        return names[0], ""
    found = f"{len(names)} streams: {', '.join(names)}" if names else "no stream"
    by_decode = " (of what `decode` made --state OUTPUT/.state/NAME.files as well)"
    return "", f"the output folder's .state holds {found}; give --stream NAME{'' if names else by_decode}"


_WANTED: Final = f"a name of the form {NAME_PATTERN}"


def stream_names(state: Path) -> list[str]:
    """Of the streams whose state folders are in this one."""
    try:
        entries = sorted(state.iterdir())
    except OSError:
        return []
    return [entry.name for entry in entries if re.fullmatch(NAME_PATTERN, entry.name) and entry.is_dir()]


def broken_rules(values: Values, bad: Collection[str]) -> Iterator[tuple[str, str]]:
    """The key to name and what is wrong, for each rule that does not hold."""
    for keys, rule in _RULES:
        if any(key in bad for key in keys) or any(values[key] is None for key in keys):
            continue
        fault = rule(*(values[key] for key in keys))
        if fault:
            yield keys[0], fault
    for key, (needed, useless, wanted) in _NEEDS.items():
        is_said = key not in bad and values[key] != SPECS[key].default
        if is_said and needed not in bad and values[needed] in useless:
            yield key, f"it means nothing without {wanted}: give {wanted} as well, or take it out"


def _encrypted(url: str) -> str:
    if not url.startswith("http:") or is_loopback(url):
        return ""
    return "http:// would send the token in the clear; it is accepted for loopback hosts only: use https://"


def _own_query(url: str) -> str:
    names = {name.casefold() for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)}
    faults = []
    if "maxconnections" in names:
        faults.append(
            "maxConnections is always sent: take it out of the query and set stream.max_connections"
        )
    if "reset" in names:
        faults.append(
            "reset can throw data away at each connect: take it out of the query and use the command "
            "`livestream-collector reset VALUE`"
        )
    return "; ".join(faults)


def _host_alone(url: str | None) -> str:
    parts = urlsplit(url or "")
    return "a proxy is a host and a port: http://host:port" if parts.path.strip("/") or parts.query else ""


def _encrypted_store(url: str) -> str:
    return _encrypted(url).replace("the token", "hits")


def _for_s3(_: str, url: str) -> str:
    return "" if url.startswith("s3://") else "it is of stores that speak S3: ship.url must be s3://..."


def _elsewhere(url: str, output: Path) -> str:
    """Both ways: what is shipped must not be found, and shipped, again."""
    if not url.startswith("file:"):
        return ""
    real_store, real_output = (Path(os.path.realpath(path)) for path in (unquote(urlsplit(url).path), output))
    apart = not real_store.is_relative_to(real_output) and not real_output.is_relative_to(real_store)
    return "" if apart else "the store and the output folder must not lie in each other"


def _ends_in_name(url: str) -> str:
    return (
        "" if not url or last_segment(url) else "the address must end in the stream's name, without a slash"
    )


def _floor(wait_s: float, url: str) -> str:
    if wait_s >= FLOOR_S or not url or is_loopback(url):
        return ""
    return (
        f"below {FLOOR_S:.0f} is accepted for loopback hosts only: the service needs that long to notice "
        "that a connection is gone"
    )


def _segment_multiple(segment_bytes: int) -> str:
    if segment_bytes % _SEGMENT_UNIT_BYTES == 0:
        return ""
    return f"must be a multiple of {_SEGMENT_UNIT_BYTES}"


def _journal_room(max_bytes: int, segment_bytes: int, max_record_bytes: int) -> str:
    least = 2 * segment_bytes + max_record_bytes
    if max_bytes >= least:
        return ""
    return (
        f"must hold two segments and the largest record: at least {format_value(_Kind.SIZE, least)} with "
        f"journal.segment_bytes = {format_value(_Kind.SIZE, segment_bytes)} and "
        f"journal.max_record_bytes = {format_value(_Kind.SIZE, max_record_bytes)}"
    )


def _outlives_resends(max_age_days: float, window_s: float, max_age_s: float) -> str:
    least_days = math.ceil((window_s + max_age_s) / 86.4) / 1000
    if max_age_days >= least_days:
        return ""
    return (
        "parts must outlive the time in which hits may be resends of theirs, and a batch may be open: at "
        f"least {least_days:g} with resends.window_s = {format_value(_Kind.SECONDS, window_s)} and "
        f"parts.max_age_s = {format_value(_Kind.SECONDS, max_age_s)}"
    )


def _holds_a_batch(max_bytes: int, batch_bytes: int) -> str:
    if max_bytes >= batch_bytes:
        return ""
    least = format_value(_Kind.SIZE, batch_bytes)
    return f"one batch may be as large: at least {least}, which is parts.max_bytes"


def _state_hidden(state: Path, output: Path) -> str:
    """Readers of the output folder skip names that begin with a dot; anything else they take for data."""
    real_state, real_output = (Path(os.path.realpath(folder)) for folder in (state, output))
    return _state_hidden_in(state, output) or _state_hidden_in(real_state, real_output)


def _state_hidden_in(state: Path, output: Path) -> str:
    if output == state or output.is_relative_to(state):
        return "the output folder must not be in the state folder"
    if not state.is_relative_to(output):
        return ""
    first = state.relative_to(output).parts[0]
    return (
        ""
        if first.startswith(".")
        else "inside the output folder it must be below a name that begins with a dot"
    )


def _hidden_once(hashed: tuple[str, ...], drop: tuple[str, ...]) -> str:
    both = privacy_fields.overlaps(drop, hashed)
    return f"{', '.join(both)} is in privacy.drop as well: keep one" if both else ""


_RULES: Final[tuple[tuple[tuple[str, ...], Callable[..., str]], ...]] = (
    (("stream.url",), _encrypted),
    (("auth.token_url",), _encrypted),
    (("ship.endpoint",), _encrypted_store),
    (("ship.endpoint", "ship.url"), _for_s3),
    (("ship.region", "ship.url"), _for_s3),
    (("ship.url", "output.folder"), _elsewhere),
    (("stream.url",), _ends_in_name),
    (("proxy.url",), _host_alone),
    (("stream.url",), _own_query),
    (("reconnect.wait_s", "stream.url"), _floor),
    (("journal.segment_bytes",), _segment_multiple),
    (("journal.max_bytes", "journal.segment_bytes", "journal.max_record_bytes"), _journal_room),
    (("state.folder", "output.folder"), _state_hidden),
    (("privacy.hash", "privacy.drop"), _hidden_once),
    *(
        ((f"retention.{kind}_max_age_days", "resends.window_s", "parts.max_age_s"), _outlives_resends)
        for kind in ("hits", "rejects", "connections")
    ),
    (("retention.hits_max_bytes", "parts.max_bytes"), _holds_a_batch),
)

_A_STORE: Final = ("ship.url", (None,), "ship.url")
_AN_ICEBERG_TABLE: Final = ("table.format", ("off", "delta"), 'table.format = "iceberg"')
_NEEDS: Final[Mapping[str, tuple[str, Collection[object], str]]] = {
    **{f"ship.{name}": _A_STORE for name in ("keep_local_s", "uploads", "endpoint", "region")},
    **{f"table.{name}": _AN_ICEBERG_TABLE for name in ("name", "catalog")},
}
"""What would be ignored without another setting, with which of its values it would be, and what it needs in
words. A default may be written down: all of them are true then.
"""
