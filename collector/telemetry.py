"""The one way to write a log line.

The coordinator and the commands write log lines, one per transition or per batch, never per record. No line
can hold a secret, steer a terminal or pass for two lines, wherever its values came from; and nothing that
goes wrong while writing one reaches the caller.
"""

from __future__ import annotations

import contextlib
import enum
import json
import math
import re
import sys
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final, Literal

from collector.escaping import printable, without_secrets
from collector.events import EVENTS, Level

_MAX_VALUE_CHARACTERS: Final = 2000
_RECENT_KEPT: Final = 500
_BARE: Final = re.compile(r"[A-Za-z0-9_.,:;/@%+*()<>|~^?!&#$-]+")
"""Console values that need no quotes."""

Format = Literal["console", "json"]


def log(event: str, /, **fields: object) -> None:
    """Write one line for ``event``, at the catalogue's level.

    *Blocks* as long as stderr does. *Raises* nothing: a line that cannot be written is not written.
    """
    entry = EVENTS.get(event)
    level = entry.level if entry is not None else "error"
    if _configured is None:
        configure()
    with contextlib.suppress(Exception):
        safe = {name: _safe(value) for name, value in fields.items()}
        getattr(_configured, level)(event, **safe)


def log_told(event: str, fields: Mapping[str, object]) -> None:
    """Write the line that another of our processes asks for."""
    log(event, **fields)


def configure(
    *, form: Format = "console", level: Level = "info", write: Callable[[str], object] | None = None
) -> None:
    """Choose the form of lines, the lowest level written, and where.

    ``write`` gets each line without its end; by default it goes to stderr.
    """
    # It takes 0.2 s to import, which commands that log nothing shall not pay.
    import structlog  # noqa: PLC0415

    global _configured  # noqa: PLW0603
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _remember,
        _render_json if form == "json" else _render_console,
    ]
    _configured = structlog.wrap_logger(
        _Lines(write or _write_stderr),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
    ).bind()


_configured: Any = None
_recent: Final[deque[dict[str, Any]]] = deque(maxlen=_RECENT_KEPT)


def recent() -> list[dict[str, Any]]:
    """The newest events that were written in this process, the oldest first, escaped and without secrets."""
    return list(_recent)


def _remember(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    _recent.append(_ordered(line))
    return line


class _Lines:
    """What structlog hands rendered lines to, whatever their level."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self.debug = self.info = self.warning = self.error = write


def _write_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _safe(value: object) -> Any:
    """The value as JSON can hold it, its texts escaped and masked."""
    match value:
        case enum.Enum():
            return _safe(value.value)
        case int() | None:
            return value
        case float():
            return round(value, 3) if math.isfinite(value) else str(value)
        case Mapping():
            return {str(_safe(str(key))): _safe(item) for key, item in value.items()}
        case list() | tuple():
            return [_safe(item) for item in value]
        case _:
            return printable(without_secrets(str(value)), _MAX_VALUE_CHARACTERS)


def _render_json(_logger: object, _method: str, line: MutableMapping[str, Any]) -> str:
    return json.dumps(_ordered(line))


def _render_console(_logger: object, _method: str, line: MutableMapping[str, Any]) -> str:
    ordered = _ordered(line)
    at, level, event = (str(ordered.pop(name)) for name in ("at", "level", "event"))
    pairs = (f"{name}={_console_value(value)}" for name, value in ordered.items())
    return " ".join([at, f"{level.upper():7}", event, *pairs])


def _ordered(line: MutableMapping[str, Any]) -> dict[str, Any]:
    head = ("at", "level", "event")
    return {name: line[name] for name in head} | {k: v for k, v in line.items() if k not in head}


def _console_value(value: Any) -> str:
    if isinstance(value, str) and _BARE.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)
