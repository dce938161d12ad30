"""Which record killed a decoder: found within two deaths, then kept as a reject.

Runs in the coordinator as pure code. The first death while a block was decoded makes it ``careful``:
it is decoded line by line from then on, and the next death there names the line. Invariant: a line
becomes a reject only when decoding itself died of it, or when it was the place of two deaths that
somebody else may have caused; so no series of kills at random makes a reject of an innocent record.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from collector.core.messages import Decode
from collector.core.supervision import Death, Phase

CRASH_SIGNALS: Final = frozenset({"SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE"})
"""What a process brings on itself; SIGABRT is also how a hung one is ended. All others come from outside:
an operator's, or the kernel's when memory is short."""

UNEXPECTED_EXCEPTION: Final = 1
"""Exit code. That of a decoder that got no memory is another: it may be any record's turn then."""

FOREIGN_DEATHS: Final = 2
"""At one line, before it is blamed for deaths that came from outside: a record may eat up all memory."""

FORGIVEN_LIMIT: Final = 20
"""Deaths by poison of all decoders within the window; one more, and it is no longer a matter of records."""

FORGIVEN_WINDOW_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Blame:
    """What a decoder's death means."""

    forgiven: bool = False
    """It does not count against the restart limit."""
    broken: bool = False
    """There were too many of these: decoding is broken."""
    line: tuple[int, int] | None = None
    """Block and line that have just become a reject."""


@dataclass(slots=True)
class Poison:
    """What is known of the uncommitted blocks; ``now_s`` is any monotonic second count."""

    _careful: set[int] = field(default_factory=set)
    _lines: dict[int, dict[int, str]] = field(default_factory=dict)
    _foreign: Counter[tuple[int, int]] = field(default_factory=Counter)
    _forgiven_s: deque[float] = field(default_factory=deque)

    def died(self, death: Death, now_s: float) -> Blame:
        """A decoder died."""
        if death.at.phase is not Phase.DECODING:
            return Blame()
        own = death.signal in CRASH_SIGNALS or (not death.signal and death.exit_code == UNEXPECTED_EXCEPTION)
        block, line = death.at.block, death.at.line
        if block not in self._careful:
            self._careful.add(block)
            return self._forgive(now_s) if own else Blame()
        if line < 0:  # not of any line
            return Blame()
        if not own:
            self._foreign[block, line] += 1
            if self._foreign[block, line] < FOREIGN_DEATHS:
                return Blame()
        self.found(block, {line: f"the decoder died of it ({death.how})"})
        blame = self._forgive(now_s) if own else Blame()
        return Blame(blame.forgiven, blame.broken, (block, line))

    def found(self, block: int, lines: Mapping[int, str]) -> None:
        """These lines are rejects from now on, each with its reason."""
        self._careful.add(block)
        self._lines.setdefault(block, {}).update(lines)

    def marked(self, order: Decode) -> Decode:
        """The order as it is to be sent."""
        seq = order.block.seq
        if seq not in self._careful:
            return order
        return replace(order, careful=True, poison=self._lines.get(seq, {}))

    def committed(self, last: int) -> None:
        """Blocks up to this one need no care any more."""
        self._careful = {seq for seq in self._careful if seq > last}
        self._lines = {seq: lines for seq, lines in self._lines.items() if seq > last}
        self._foreign = Counter({at: count for at, count in self._foreign.items() if at[0] > last})

    def _forgive(self, now_s: float) -> Blame:
        while self._forgiven_s and now_s - self._forgiven_s[0] > FORGIVEN_WINDOW_S:
            self._forgiven_s.popleft()
        self._forgiven_s.append(now_s)
        return Blame(forgiven=True, broken=len(self._forgiven_s) > FORGIVEN_LIMIT)
