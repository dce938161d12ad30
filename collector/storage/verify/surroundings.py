"""What stands around the committed parts: the resend index, the journal, the notes of who retires parts.

Runs in ``verify``, reads only, beside a collector that changes all of it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from collector.errors import DamagedError, StorageError
from collector.storage.fs import Disk
from collector.storage.ids import Run
from collector.storage.layout import StateFolder, memory_journal, run_range
from collector.storage.retired import read_retired, retired_records
from collector.storage.segments import SEGMENT_HEADER_BYTES, MappedSegment, list_segments, space_of
from collector.storage.verify.findings import Finding, Kind


def retired_now(disk: Disk, state: StateFolder, findings: list[Finding]) -> dict[str, bytes]:
    """SHA-256 by path of what the log has not been told yet. Ask the log after this, not before."""
    found: dict[str, bytes] = {}
    for path in retired_records(disk, state):
        try:
            found |= {file.path: file.sha256 for file in read_retired(disk, path, 0).files}
        except FileNotFoundError:  # the log has it meanwhile
            continue
        except DamagedError as error:
            findings.append(Finding(Kind.RETIRED, str(path), str(error), "a record of retired parts"))
    return found


def check_runs(disk: Disk, state: StateFolder) -> list[Finding]:
    """Runs of the resend index that are there must open; they come and go as it is merged."""
    findings = []
    for name in disk.listdir(state.ids) if disk.exists(state.ids) else []:
        if run_range(name) is None:
            continue
        with suppress(FileNotFoundError):
            try:
                Run(disk, state.ids / name)
            except StorageError as error:
                findings.append(
                    Finding(Kind.INDEX, str(state.ids / name), f"does not open: {error}", "a sorted run")
                )
    return findings


def journals_of(state: StateFolder, instance: str) -> tuple[Path, Path]:
    """On disk and in memory; either may have been used."""
    return state.journal, memory_journal(instance)


def uncommitted_blocks(disk: Disk, journal: Path, *, after: int, findings: list[Finding]) -> tuple[int, int]:
    """Blocks after that one, and their records, by their headers."""
    blocks = records = 0
    for number in list_segments(disk, journal).used if disk.exists(journal) else ():
        try:
            segment = MappedSegment(disk, journal, number)
        except FileNotFoundError:  # freed meanwhile
            continue
        except DamagedError as error:
            findings.append(Finding(Kind.JOURNAL, str(journal), str(error), "a whole segment"))
            continue
        offset = SEGMENT_HEADER_BYTES
        while (header := segment.header_at(offset)) is not None:
            if header.seq > after:
                blocks, records = blocks + 1, records + header.records
            offset += space_of(header.length)
        segment.close()
    return blocks, records
