"""``livestream-collector decode --rejects``: the rejects of a stream once more, after an upgrade.

They go through the pipeline as saved files do, with a state folder and an instance of their own. Each
rejects part is run once, known by its SHA-256. Parts that this instance wrote, with what was still no
hit, are run again by another version only: otherwise each run would feed on the leftovers of the last.
So what no version knew yet goes on from upgrade to upgrade, and nothing is run twice by one version.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from collector import __version__
from collector.commands.decode import decode
from collector.coordinator.foundation import lay_foundation
from collector.errors import DamagedError
from collector.given import Given
from collector.storage.fs import DISK
from collector.storage.recovery import WaysOn
from collector.storage.rejects import LeftOut, rejects_parts, version_of, write_lines

_LINES: Final = "rejects.jsonl"
"""In the staging folder: a start removes what a killed run left there."""


class _Unpack:
    """One part after the other as lines, counted."""

    def __init__(self, lines: Path) -> None:
        self.parts = 0
        self.left_out = LeftOut()
        self._lines = lines

    def __call__(self, part: Path) -> Path:
        self.left_out += write_lines(DISK, part, self._lines)
        self.parts += 1
        return self._lines


def run(given: Given, ways_on: WaysOn) -> int:
    """Until every record of every part is committed again. *Raises* ``CollectorError``."""
    settings = given.settings
    output, stream = settings.output.folder, settings.stream.name
    parts = rejects_parts(DISK, output, stream)
    if not parts and not settings.state.folder.exists():
        print(f"no rejects parts of stream {stream} in {output}: nothing to run again")
        return 0
    with lay_foundation(settings, ways_on=ways_on) as foundation:
        before = foundation.ledger.totals
        unpack = _Unpack(foundation.state.staging / _LINES)
        parts = rejects_parts(DISK, output, stream)  # once more: recovery may have made some visible
        due = [*_due(parts, foundation.ledger.instance)]
        try:
            return decode(given, foundation, due, unpack)
        finally:
            after = foundation.ledger.totals
            print(
                f"{unpack.parts:,} of {len(parts):,} rejects parts of stream {stream} run again:"
                f" {after.records - before.records:,} records,"
                f" {after.rows - before.rows:,} of them became hits,"
                f" {after.resends - before.resends:,} were resends of those,"
                f" {after.rejects - before.rejects:,} stayed rejects;"
                f" {unpack.left_out.cut:,} that were cut at the size limit were skipped"
                f"{_withheld(unpack.left_out.withheld)}"
            )


def _withheld(records: int) -> str:
    if not records:
        return ""
    return (
        f";\n{records:,} can never be run again: [privacy] was set when they came, so only their reasons,"
        " lengths and fingerprints were kept"
    )


def _due(parts: Iterable[Path], instance: str) -> Iterator[Path]:
    for part in parts:
        if not part.name.startswith(f"part-{instance}-") or _written_by(part) != __version__:
            yield part


def _written_by(part: Path) -> str:
    try:
        return version_of(DISK, part)
    except DamagedError:
        return ""  # it is named when its turn comes
