"""What a shell completes: names of settings after ``--set``, codes after ``explain``.

Runs in the process that a shell starts at each TAB, so the tables are imported only when asked for. Turning
it on, by ``--install-completion``, and everything about options and commands, is typer's.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Final

from collector.errors import ConfigurationError

SHELLS: Final = ("bash", "zsh", "fish")
"""Whose completion is known to work."""

_WANT_A_SHELL: Final = frozenset({"--install-completion", "--show-completion"})


def assignments(incomplete: str) -> list[str]:
    """``section.key=`` of every setting that begins so.

    Once only one is left its default or choices come along: beside them a shell adds no space after the "=".
    """
    from collector.settings_kinds import format_value  # noqa: PLC0415
    from collector.settings_table import SPECS  # noqa: PLC0415

    name, equals, value = incomplete.partition("=")
    keys = [key for key in SPECS if (key == name if equals else key.startswith(name))]
    if len(keys) != 1:
        return [f"{key}=" for key in keys]
    (key,) = keys
    spec = SPECS[key]
    default = () if spec.default is None else (format_value(spec.kind, spec.default).replace(" ", ""),)
    values = [text for text in spec.choices or default if text.startswith(value)]
    return [f"{key}={text}" for text in ([] if equals else [""]) + values]


def codes(incomplete: str) -> list[str]:
    """Every code that ``explain`` lists and that begins so."""
    from collector.explanations import EXPLANATIONS  # noqa: PLC0415

    known = dict.fromkeys(known.code for known in EXPLANATIONS)
    return [code for code in known if code.startswith(incomplete)]


def refuse_unknown_shell(arguments: Sequence[str]) -> None:
    """Typer takes the shell that it finds above this process.

    *Raises* ConfigurationError where there is none, as under ``ssh HOST COMMAND`` or in a container.
    """
    if not _WANT_A_SHELL & set(arguments[:1]) or len(arguments) > 1:
        return
    shellingham = importlib.import_module("shellingham")  # typer's own

    try:
        found = shellingham.detect_shell()[0]
    except shellingham.ShellDetectionFailure:
        found = "none"
    if found not in SHELLS:
        raise ConfigurationError(
            f"completion is for {', '.join(SHELLS[:-1])} and {SHELLS[-1]}, and the shell that this was"
            f" started from is {found}: call it at the prompt of one of them"
        )
