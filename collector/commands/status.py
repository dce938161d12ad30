"""``livestream-collector status``: what the collector is doing, or what the last one left behind.

Asks the running one by the socket in its state folder and takes no lock, so it disturbs nobody however often
it is called. Where none runs it reads what is there: last word, commit log, journal, floor.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from collector.commands.asking import ask
from collector.commands.facts import Fact, facts, moment
from collector.commands.terminal import styled
from collector.coordinator.clock import boottime_s, now_us
from collector.core.floor_record import FloorRecord, Resumed, resume
from collector.core.ledger import LogState
from collector.core.messages import UNREADABLE, Totals
from collector.core.sentence import duration
from collector.core.status import Status
from collector.errors import CollectorError, ExitCode
from collector.escaping import printable
from collector.settings import Settings
from collector.settings_rules import stream_names
from collector.storage.commitlog import read_log
from collector.storage.floor import FloorFile
from collector.storage.fs import DISK
from collector.storage.lastword import read_last_word
from collector.storage.layout import StateFolder
from collector.storage.lock import holder
from collector.storage.verify.surroundings import journals_of, uncommitted_blocks

_BOLD: Final = 1
_DIM: Final = 2
_RED, _GREEN, _YELLOW = 31, 32, 33
_TONES: Final = {"streaming": _GREEN, "waiting": _YELLOW, "paused": _YELLOW, "refused": _RED}
_NARROWEST: Final = 40


@dataclass(slots=True)
class Left:
    """What is there while none answers."""

    folder: Path
    holder: int | None
    """The process that has the state folder, and does not answer; ``None``: none has."""
    last_word: Status | None = None
    totals: Totals | None = None
    written_us: int = 0
    """When the commit log was last; 0: there is none."""
    blocks: int = 0
    """In the journal, accepted and not committed."""
    records: int = 0
    earliest_us: int = 0
    """Of the next request; 0: at once."""
    faults: list[str] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        if self.holder is not None:
            return (
                f"Process {self.holder} has the state folder and does not answer: it starts, ends, or hangs."
            )
        if not self.written_us:
            return "No collector runs, and none has run here yet."
        if self.last_word is None:
            return "No collector runs. The last one left no word: it was killed, or its host went down."
        return f"No collector runs. {self.last_word.sentence}"


def run(settings: Settings, *, as_json: bool) -> int:
    """Print it. *Blocks* for some seconds where a collector hangs."""
    folders = _folders(settings)
    told: list[Status | Left] = [look(folder, settings.reconnect.wait_s) for folder in folders]
    if as_json:
        documents = [document(at) for at in told]
        text = msgspec.json.format(
            msgspec.json.encode(documents[0] if len(told) == 1 else documents)
        ).decode()
    elif len(told) == 1:
        text = "\n".join(_lines(told[0]))
    else:
        text = "\n".join(_listed(folders, told, settings))
    sys.stdout.write(f"{text}\n")
    return ExitCode.DONE


def _folders(settings: Settings) -> list[Path]:
    """The one that was asked for, or all below the output folder."""
    if settings.stream.name or settings.state.folder != settings.output.folder / ".state":
        return [settings.state.folder]
    return [settings.state.folder / name for name in stream_names(settings.state.folder)] or [
        settings.state.folder
    ]


def look(folder: Path, wait_s: float) -> Status | Left:
    """At the collector of one state folder. *Blocks* for some seconds where it hangs."""
    answer = ask(folder, "/status.json")
    if answer is not None:
        try:
            return msgspec.json.decode(answer, type=Status)
        except UNREADABLE as error:
            return Left(
                folder,
                holder(StateFolder(folder)),
                faults=[f"it answers otherwise than this version: {error}"],
            )
    return _left(StateFolder(folder), wait_s)


# ---------------------------------------------------------------- what the last one left


def _left(state: StateFolder, wait_s: float) -> Left:
    left = Left(state.root, holder(state), read_last_word(DISK, state))
    try:
        left.written_us = round(state.commit_log.stat().st_mtime * 1e6)
        ledger = _ledger(state)
        left.totals = ledger.totals
        for journal in journals_of(state, ledger.instance) if ledger.instance else ():
            blocks, records = uncommitted_blocks(DISK, journal, after=ledger.last_block, findings=[])
            left.blocks, left.records = left.blocks + blocks, left.records + records
        left.earliest_us = _earliest_us(state, wait_s)
    except FileNotFoundError:
        pass
    except (OSError, CollectorError) as error:
        left.faults.append(str(error))
    return left


def _ledger(state: StateFolder) -> LogState:
    """Of the log's tail alone, as a start reads it."""
    ledger = LogState()
    for append in read_log(DISK.read_file(state.commit_log), state.commit_log):
        for number, entry in enumerate(append.entries, append.first):
            ledger.fold(number, entry)
    return ledger


def _earliest_us(state: StateFolder, wait_s: float) -> int:
    """Of the next request; 0: at once."""
    _, resumed, now_s = resumed_now(state, wait_s)
    at_s = earliest_s(resumed, wait_s)
    return now_us() + round((at_s - now_s) * 1e6) if at_s > now_s else 0


def resumed_now(state: StateFolder, wait_s: float) -> tuple[FloorRecord | None, Resumed, float]:
    """The floor's record, what a start now would take from it, and when that is: CLOCK_BOOTTIME, seconds."""
    record, existed = FloorFile(DISK, state.floor, FloorRecord).read()
    now_s = boottime_s()
    resumed = resume(
        record,
        existed=existed,
        boot_id=DISK.read_file("/proc/sys/kernel/random/boot_id").decode().strip(),
        now=now_s,
        wait_s=wait_s,
        settings="" if record is None else record.settings,
        orphaned=False,
    )
    return record, resumed, now_s


def earliest_s(resumed: Resumed, wait_s: float) -> float:
    """When a request may be sent at the earliest, CLOCK_BOOTTIME."""
    return (
        resumed.not_before_s if resumed.held_s is None else max(resumed.not_before_s, resumed.held_s + wait_s)
    )


# ---------------------------------------------------------------- as text


def _lines(at: Status | Left) -> Iterator[str]:
    width = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else sys.maxsize
    width = max(width, _NARROWEST)
    yield from (
        styled(line, _BOLD, _tone(at)) for line in textwrap.wrap(printable(at.sentence), min(width, 10_000))
    )
    yield ""
    told = list(facts(at) if isinstance(at, Status) else _facts_of(at))
    column = max(len(label) for label, _ in told) + 2
    for label, words in told:
        first, *rest = textwrap.wrap(words, min(width - column, 10_000), break_on_hyphens=False) or [""]
        yield styled(label.ljust(column), _DIM) + first
        yield from (" " * column + line for line in rest)


def _facts_of(left: Left) -> Iterator[Fact]:
    now = now_us()
    yield "State", printable(str(left.folder))
    if left.written_us:
        yield "Last commit", f"{moment(left.written_us, now)}, {duration((now - left.written_us) / 1e6)} ago"
    if left.totals is not None:
        at = left.totals
        yield (
            "Committed",
            f"{at.records:,} records = {at.rows:,} rows + {at.resends:,} resends + {at.rejects:,} rejects",
        )
        yield "Journal", _in_journal(left)
        if left.holder is None:
            yield "Next request", _next_request(left, now)
    if left.last_word is not None and left.last_word.stopped is not None and left.last_word.stopped.exit_code:
        yield "More", f"livestream-collector explain exit {left.last_word.stopped.exit_code}"
    for fault in left.faults:
        yield "Fault", printable(fault)


def _in_journal(left: Left) -> str:
    if not left.blocks:
        return "empty: all that was accepted is committed"
    return f"{left.records:,} records are accepted and not committed yet: the next start goes on with them"


def _next_request(left: Left, now: int) -> str:
    if not left.earliest_us:
        return "at once when it is started"
    return f"not before {moment(left.earliest_us, now)}, however early it is started"


def _tone(at: Status | Left) -> int:
    if isinstance(at, Left):
        return _RED if at.holder is not None or (at.written_us and at.last_word is None) else _YELLOW
    well = at.ready or at.connection.state.value not in _TONES
    return _TONES.get(at.connection.state.value, 0) if well else _RED


def _listed(folders: Sequence[Path], told: Sequence[Status | Left], settings: Settings) -> Iterator[str]:
    """Of several streams a line or two each."""
    for folder, at in zip(folders, told, strict=True):
        yield styled(printable(folder.name), _BOLD)
        yield f"  {styled(printable(at.sentence), _tone(at))}"
    yield ""
    output = printable(str(settings.output.folder))
    yield f"More of one: livestream-collector status --output {output} --stream NAME"


# ---------------------------------------------------------------- as JSON


def document(at: Status | Left) -> dict[str, Any]:
    """Whether one runs, then the status; where none does, what it left."""
    if isinstance(at, Status):
        return {"running": True, **msgspec.to_builtins(at)}
    return {
        "running": at.holder is not None,
        "sentence": at.sentence,
        "state_folder": str(at.folder),
        "last_word": None if at.last_word is None else msgspec.to_builtins(at.last_word),
        "committed": None
        if at.totals is None
        else {name: getattr(at.totals, name) for name in Totals.__struct_fields__},
        "committed_us": at.written_us,
        "journal": {"blocks": at.blocks, "records": at.records},
        "earliest_request_us": at.earliest_us,
        "faults": at.faults,
    }
