"""Whether the files that parts were compacted into are there and whole.

Runs in ``verify``, reads only, beside a compaction that goes on. Invariant: a file is called missing only
if the records, read again after it was looked for, still say that it has to be there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from collector.core.messages import FileKind, StagedFile
from collector.errors import DamagedError
from collector.storage.compacted import CompactionFolder, KnownFile, hour_records, read_plan
from collector.storage.fs import Disk
from collector.storage.layout import SCHEMA_VERSION
from collector.storage.verify.findings import Finding, Kind, Report
from collector.storage.verify.parts import Place, check_file
from collector.storage.verify.surroundings import retired_now


class CompactedFiles:
    """Of one stream, as its compaction's records say when this is made. What is off goes to the report."""

    def __init__(self, disk: Disk, output: Path, stream: str, report: Report) -> None:
        self._disk = disk
        self._output = output
        self._stream = stream
        self._report = report
        self._folder = CompactionFolder.of(output, stream)
        self._expected: dict[str, KnownFile] = {}
        try:
            self._expected = self._read()
        except DamagedError as error:
            self._told(error)

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self._expected.values())

    def check(
        self,
        visible: Collection[str],
        *,
        ids: bool,
        take: Callable[[Place], None],
        progress: Callable[[int], None],
    ) -> bool:
        """Says whether all of them could be read. ``visible``: names like theirs that are to be seen.

        *Blocks* for one read of each. *Raises* StorageError, NewerVersionError.
        """
        says = {"stream": self._stream, "schema_version": str(SCHEMA_VERSION)}
        absent, usable, rows = [], True, 0
        for file in self._expected.values():
            staged = StagedFile(FileKind.HITS, "", file.path, file.size, file.digest, file.rows)
            found = check_file(self._disk, self._output, staged, says, ids=ids, take=take, progress=progress)
            self._report.findings += found.findings
            if found.absent:
                absent.append(file)
                continue
            self._report.files += 1
            self._report.bytes += file.size
            usable, rows = usable and found.usable, rows + file.rows
        if self._expected:
            checked = len(self._expected) - len(absent)
            self._report.notes.append(f"compacted: {checked:,} files of {rows:,} rows of this stream")
        return self._judge(absent, visible) and usable

    def _judge(self, absent: list[KnownFile], visible: Collection[str]) -> bool:
        """Whether none is missing."""
        unknown = {path for path in visible if path not in self._expected}
        if not absent and not unknown:
            return True
        try:
            now, moving = self._read(), self._moving()
        except DamagedError as error:
            self._told(error)
            return False
        retired = retired_now(self._disk, self._folder, self._report.findings)
        missing = [
            file
            for file in absent
            if file.path in now and file.path not in moving and file.path not in retired
        ]
        self._report.findings += [
            Finding(
                Kind.MISSING,
                str(self._output / file.path),
                "is not there",
                f"a compacted file of {file.rows:,} rows",
            )
            for file in missing
        ]
        unknown -= now.keys() | moving
        others = sum(self._disk.exists(self._output / path) for path in unknown)
        if others:
            self._report.notes.append(f"{others:,} files of a compaction are there too")
        return not missing

    def _read(self) -> dict[str, KnownFile]:
        records = hour_records(self._disk, self._folder)
        return {file.path: file for _, record in records for file in record.files}

    def _moving(self) -> set[str]:
        """What a replacement that is decided and not finished takes away or brings."""
        plan = read_plan(self._disk, self._folder)
        return set() if plan is None else {file.path for file in (*plan.inputs, *plan.outputs)}

    def _told(self, error: DamagedError) -> None:
        self._report.findings.append(
            Finding(Kind.COMPACTION, str(self._folder.root), str(error), "records of compacted files")
        )
