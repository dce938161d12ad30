"""A list of steps, each with what it found and what to do; what depends on a failed one is skipped.

Used by ``check``. The invariant: the exit code is that of the first cross.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from collector.core.remedies import Remedy
from collector.errors import CollectorError, ExitCode

C = TypeVar("C")


class Mark(enum.StrEnum):
    """What came of a step."""

    OK = "ok"
    NOTE = "note"
    """It will work, and somebody should know something."""
    CROSS = "cross"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Found:
    """What a step found."""

    mark: Mark
    said: str
    do: str = ""
    code: ExitCode = ExitCode.DONE


def ok(said: str) -> Found:
    return Found(Mark.OK, said)


def note(said: str, do: str) -> Found:
    return Found(Mark.NOTE, said, do)


def cross(said: str, do: str, code: ExitCode = ExitCode.CONFIGURATION) -> Found:
    return Found(Mark.CROSS, said, do, code)


def crossed(remedy: Remedy, detail: str, code: ExitCode = ExitCode.CONFIGURATION) -> Found:
    """A cross in the words of the table that ``explain`` has too."""
    return cross(f"{remedy.means}: {detail}" if detail else remedy.means, remedy.do, code)


class Step(NamedTuple, Generic[C]):
    """``look`` may block, and raise ``CollectorError`` or ``OSError``, which are crosses."""

    name: str
    needs: tuple[str, ...]
    look: Callable[[C], Found | Awaitable[Found]]


async def walk(steps: Sequence[Step[C]], context: C) -> AsyncIterator[tuple[str, Found]]:
    """Each step in turn, and what came of it."""
    good: set[str] = set()
    for step in steps:
        missing = [need for need in step.needs if need not in good]
        if missing:
            yield step.name, Found(Mark.SKIPPED, f"needs: {', '.join(missing)}")
            continue
        found = await _look(step, context)
        if found.mark in {Mark.OK, Mark.NOTE}:
            good.add(step.name)
        yield step.name, found


async def _look(step: Step[C], context: C) -> Found:
    try:
        found = step.look(context)
        return await found if inspect.isawaitable(found) else found
    except CollectorError as error:
        return cross(str(error), "", error.exit_code)
    except OSError as error:
        return cross(str(error), "", ExitCode.STORAGE)
