"""The progress cell: 64 bytes of shared memory in which a child says that it lives and what it does.

The coordinator makes one per child and reads it; the child writes. No thread of the child takes part
(msgspec and arro3 hold the interpreter for long), no call is made, and what it says outlives it.
Each field is an int64 in native order, stored at once: beats, phase, block, line.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

from collector.core.supervision import Phase, ProgressSnapshot

CELL_BYTES: Final = 64

_BEATS, _PHASE, _BLOCK, _LINE = range(4)
_PHASES: Final = frozenset(Phase)


class ProgressCell:
    """Either side's view of a cell; only the child's side writes."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self._mapping = mapping
        self._words = memoryview(mapping).cast("q")

    @classmethod
    def make(cls) -> tuple[Self, int]:
        """A new cell, and the descriptor that a child inherits; close that one when it has."""
        fd = os.memfd_create("progress", os.MFD_CLOEXEC)
        os.ftruncate(fd, CELL_BYTES)
        return cls(mmap.mmap(fd, CELL_BYTES)), fd

    @classmethod
    def from_fd(cls, fd: int | None) -> Self:
        """The child's side; takes the descriptor. ``None``: a cell that nobody reads."""
        if fd is None:
            return cls(mmap.mmap(-1, CELL_BYTES))
        try:
            return cls(mmap.mmap(fd, CELL_BYTES))
        finally:
            os.close(fd)

    # ------------------------------------------------------------ the child's side

    def beat(self) -> None:
        """It lives."""
        self._words[_BEATS] += 1

    def enter(self, phase: Phase, block: int = 0, line: int = -1) -> None:
        """It does something else from now on. The phase comes last: it says that the rest holds."""
        words = self._words
        words[_BLOCK] = block
        words[_LINE] = line
        words[_PHASE] = phase
        words[_BEATS] += 1

    @contextmanager
    def waits_for_disk(self) -> Iterator[None]:
        """In a call that may take as long as the disk likes."""
        phase = self._words[_PHASE]
        self._words[_PHASE] = Phase.DISK
        self.beat()
        try:
            yield
        finally:
            self._words[_PHASE] = phase
            self.beat()

    # ------------------------------------------------------------ the coordinator's side

    def read(self) -> ProgressSnapshot:
        """As it is now. A child that went astray may have written anything."""
        beats, phase, block, line, *_ = self._words.tolist()
        return ProgressSnapshot(beats, Phase(phase) if phase in _PHASES else Phase.WAITING, block, line)

    def close(self) -> None:
        self._words.release()
        self._mapping.close()
