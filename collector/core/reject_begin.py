"""How a reject begins, for people: a few of each block travel from the decoders to the status.

Pure data. The invariant: its texts are escaped and shortened, whoever shows them.
"""

from __future__ import annotations

import msgspec


class RejectBegin(msgspec.Struct, frozen=True, array_like=True):
    """One of the first rejects of a block."""

    line: int
    reason: str
    text: str
    """Empty where privacy forbids it."""
    length: int
    """Of the record, bytes."""
