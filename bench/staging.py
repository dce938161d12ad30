"""A share of a batch, as a decoder stages it: filed by hour, encoded, synced, read back, hashed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from bench.state import INSTANCE, STREAM
from collector.core.messages import Stage, StagedFile, Totals
from collector.decoder.decode import Decoded
from collector.decoder.parquet import PartIdentity, Share
from collector.storage.fs import DISK

NO_DROPS: Final = np.empty(0, np.uint32)


def staged(folder: Path, decoded: Iterable[Decoded]) -> list[StagedFile]:
    """No hit of these blocks is a resend."""
    share = Share(DISK, folder, PartIdentity(INSTANCE, STREAM), batch=1, share=1, attempt=1)
    last = 0
    for last, block in enumerate(decoded, 1):
        share.add(block, NO_DROPS, seq=last, connection=1)
    return share.stage(
        Stage(
            batch=1,
            last=last,
            share=1,
            attempt=1,
            shares=1,
            before=Totals(),
            batch_before=(0, 0),
            held_us=(0, 0),
        )
    )
