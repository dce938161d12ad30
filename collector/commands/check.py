"""``livestream-collector check``: everything a run needs, tried out without taking the connection.

The invariant: no request is sent to the stream; a TLS handshake with its host is as far as it goes.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from collector.commands.check_host import HOST_STEPS
from collector.commands.check_lake import LAKE_STEPS
from collector.commands.check_network import NETWORK_STEPS
from collector.commands.checklist import Found, Mark, Step, cross, ok, walk
from collector.commands.checkup import Checkup
from collector.commands.terminal import styled
from collector.credentials import load_credentials, load_privacy_key
from collector.errors import ConfigurationError, ExitCode
from collector.escaping import printable, without_secrets
from collector.proxy import find_proxy
from collector.settings import Loaded
from collector.settings_values import is_loopback
from collector.trust import find_ca_file

PROGRAM: Final = "livestream-collector"

_SIGNS: Final[Mapping[Mark, tuple[str, str, int]]] = {
    Mark.OK: ("\u2713", "ok  ", 32),
    Mark.NOTE: ("!", "note", 33),
    Mark.CROSS: ("\u2717", "FAIL", 31),
    Mark.SKIPPED: ("-", "skip", 2),
}
"""Of each mark the sign, the same without Unicode, and its colour on a terminal (SGR)."""


def run(
    load: Callable[[], Loaded],
    environ: Mapping[str, str],
    arguments: Sequence[str],
    *,
    hits_per_s: float | None,
    as_json: bool,
) -> int:
    """Every step, shown as it ends. ``arguments``: of the command line, to be typed again for ``run``.

    Gives the exit code of the first cross. *Blocks* for as long as the network lets it wait.
    """
    checkup = Checkup(load, environ, hits_per_s, has_file="--config" in arguments)
    return asyncio.run(_checked(checkup, _run_command(arguments), as_json=as_json))


async def _checked(checkup: Checkup, command: str, *, as_json: bool) -> int:
    found: list[tuple[str, Found]] = []
    async for name, result in walk(STEPS, checkup):
        found.append((name, result))
        if not as_json:
            _show(name, result)
    code = next((result.code for _, result in found if result.mark is Mark.CROSS), ExitCode.DONE)
    if as_json:
        steps = [{"name": name, "mark": each.mark, "said": each.said, "do": each.do} for name, each in found]
        _write(json.dumps({"exit_code": int(code), "steps": steps, "try": command}, indent=2))
    else:
        _write(f"\n{_way_on(found, command)}")
    return int(code)


def _way_on(found: Sequence[tuple[str, Found]], command: str) -> str:
    crosses = [name for name, each in found if each.mark is Mark.CROSS]
    if crosses:
        first = "the first, from which others may follow," if len(crosses) > 1 else "that"
        return f"Not ready: {', '.join(crosses)}. Mend {first} and check again."
    return (
        f"Nothing was asked of the stream. This tries it for 30 seconds and keeps what it gets:\n  {command}"
    )


def _show(name: str, found: Found) -> None:
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    sign, plain, colour = _SIGNS[found.mark]
    _write(f"{styled(sign if unicode else plain, colour)} {name:<12} " + _indented(found.said, 15))
    if found.do:
        _write(f"{'':15}-> " + _indented(found.do, 18))


def _indented(text: str, width: int) -> str:
    lines = [printable(without_secrets(line)) for line in text.split("\n")]
    return f"\n{'':{width}}".join(lines)


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _run_command(arguments: Sequence[str]) -> str:
    return shlex.join([PROGRAM, "run", *arguments, "--stop-after", "30"])


# ---------------------------------------------------------------- what everything else needs


_INIT: Final = f"`{PROGRAM} init` writes a settings file; then `{PROGRAM} check --config livestream.toml`."


def _settings(checkup: Checkup) -> Found:
    try:
        loaded = checkup.load()
    except ConfigurationError as error:
        return cross(str(error), "" if checkup.has_file else _INIT)
    checkup.loaded = loaded
    load_privacy_key(checkup.environ, wanted=bool(loaded.settings.privacy.hash))
    sources = sorted(set(loaded.sources.values()))
    return ok(f"stream {loaded.settings.stream.name}; from {', '.join(sources)}")


def _credentials(checkup: Checkup) -> Found:
    settings = checkup.settings
    credentials = load_credentials(
        checkup.environ, loopback=is_loopback(settings.stream.url), token_file=settings.auth.token_file
    )
    checkup.credentials = credentials
    if credentials.token is None:
        return ok("client id and client secret: OAuth Server-to-Server")
    return ok(
        f"a token in {printable(credentials.token_file)}" if credentials.token_file else "a static token"
    )


def _trust(checkup: Checkup) -> Found:
    checkup.ca_file = find_ca_file(str(checkup.settings.tls.ca_file or ""), checkup.environ)
    return ok(f"certificates are checked against {checkup.ca_file}")


def _proxy(checkup: Checkup) -> Found:
    settings = checkup.settings.proxy
    checkup.proxy = find_proxy(settings.url, settings.user, checkup.environ)
    return ok("none" if checkup.proxy is None else checkup.proxy.url)


STEPS: Final[Sequence[Step[Checkup]]] = (
    Step("settings", (), _settings),
    Step("credentials", ("settings",), _credentials),
    *HOST_STEPS,
    Step("trust", ("settings",), _trust),
    Step("proxy", ("settings",), _proxy),
    *NETWORK_STEPS,
    *LAKE_STEPS,
)
