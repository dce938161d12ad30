"""Small parts into large ones, hour by hour, and each hit once whatever collector took it.

Runs in the command ``compact``, beside running collectors. Invariant: what is to be seen changes only in
``collector.lake.swap``, after the new files are whole, durable and counted; a failure before leaves
everything as it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from collector import __version__
from collector.core.compaction import HourFile, Plan, compact_names, compaction_id, files_wanted, plan
from collector.core.messages import FileKind, StagedFile
from collector.core.privacy import merged_metadata
from collector.core.shipping import ShipPlan
from collector.decoder.partfile import PartFile
from collector.decoder.schema import HITS_SCHEMA
from collector.errors import ConfigurationError, DamagedError, InUseError, VerificationError
from collector.lake.elsewhere import Elsewhere
from collector.lake.engines import Engine
from collector.lake.inventory import Inventory, hour_folder, hour_name, take_inventory
from collector.lake.places import ChangedError, Checked, write_places
from collector.lake.reorder import Order, in_order, sizes_of, take_order
from collector.lake.swap import Places, finish, plan_of, replace
from collector.storage.compacted import CompactionFolder
from collector.storage.fs import Disk
from collector.storage.layout import SCHEMA_VERSION
from collector.storage.lock import StateLock
from collector.storage.verify.parts import OpenFile, Part

PASSES: Final = 3
"""Each input counts so often in the progress: places, buckets, files."""

_FACTOR: Final = np.uint64(0xBF58476D1CE4E5B9)
"""Source: splitmix64, its first multiplication."""


class Watcher(Protocol):
    """Whoever wants to know how far it is."""

    def begun(self, total_bytes: int) -> None: ...

    def advanced(self, count_bytes: int) -> None: ...

    def named(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What is asked for."""

    stream: str
    lateness_us: int
    memory_bytes: int
    target_bytes: int
    mode: int


@dataclass(frozen=True, slots=True)
class HourDone:
    """What became of an hour."""

    hour: str
    files: int
    parts: int
    rows: int
    doubles: int
    size: int
    outputs: int
    size_after: int
    seconds: float


@dataclass(slots=True)
class Outcome:
    """Of one call."""

    finished: str = ""
    """The hour whose replacement a crash had left, done now."""
    done: list[HourDone] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    """Hours left to the next run, and why."""
    faults: list[str] = field(default_factory=list)
    """Hours left alone since something is wrong with them."""


class Compaction:
    """One stream of one output folder, ours alone within ``alone``."""

    def __init__(
        self,
        disk: Disk,
        output: Path,
        rules: Rules,
        *,
        states: Sequence[Path],
        shipping: ShipPlan | None,
        now_us: Callable[[], int],
    ) -> None:
        """``shipping``: what the settings say of stores and tables. *Raises* ConfigurationError."""
        self._disk = disk
        self._output = output
        self._rules = rules
        self._states = states
        self._now_us = now_us
        self._folder = CompactionFolder.of(output, rules.stream)
        elsewhere = Elsewhere(disk, output, shipping)
        self._places = Places(disk, self._folder, output, rules.mode, elsewhere)
        self._checked = Checked(disk, output)
        self._hours: dict[int, list[HourFile]] = {}
        self.inventory = Inventory()
        self.plan = Plan()
        """Of the newest survey; ``inventory`` likewise."""

    # ------------------------------------------------------------ what there is to do

    def survey(self) -> Plan:
        """Reads only. *Raises* ConfigurationError, DamagedError, StorageError."""
        self.inventory = take_inventory(
            self._disk,
            self._output,
            self._rules.stream,
            states=self._states,
            compaction=self._folder,
            elsewhere=self._places.elsewhere,
        )
        self._hours = {}
        for file in sorted(self.inventory.files):
            self._hours.setdefault(file.hour, []).append(file)
        found = self.inventory
        self.plan = plan(found.files, found.unsettled, self._now_us(), self._rules.lateness_us)
        return self.plan

    def inputs(self, hour: int) -> list[HourFile]:
        return self._hours.get(hour, [])

    def size(self, hours: Iterable[int]) -> int:
        return sum(file.size for hour in hours for file in self.inputs(hour))

    # ------------------------------------------------------------ doing it

    @contextmanager
    def alone(self) -> Iterator[None]:
        """*Raises*: InUseError beside another compact; ConfigurationError."""
        self._folder.make(self._disk)
        try:
            lock = StateLock.take(self._disk, self._folder)
        except InUseError as error:
            raise InUseError(
                f"another compact works on stream {self._rules.stream} of {self._output}: wait for it"
            ) from error
        with lock:
            yield

    def run(self, engine: Engine, watcher: Watcher, told: Callable[[HourDone], None]) -> Outcome:
        """*Blocks* for reading and writing everything that is due. Call it ``alone``.

        *Raises*: NoSpaceError, StorageError, ConfigurationError: what was done by then is done.
        """
        outcome = Outcome(finish(self._places))
        self._clear_up()
        due = self.survey()
        if due.due:
            self._check_file_system()
        watcher.begun(PASSES * self.size(due.due))
        for hour in due.looked_at:
            watcher.named(hour_name(hour))
            try:
                done = self._compact(hour, engine, watcher, wanted=hour in due.due)
            except ChangedError as error:
                outcome.changed.append(f"{hour_name(hour)}: {error}")
            except (DamagedError, VerificationError) as error:
                outcome.faults.append(f"{hour_name(hour)}: {error}")
            else:
                if done is not None:
                    outcome.done.append(done)
                    told(done)
            finally:
                self._clear_up()
        return outcome

    def _clear_up(self) -> None:
        """Remove what is of no use: everything but the files of a replacement that was decided."""
        if not self._disk.exists(self._folder.plan):
            for name in self._disk.listdir(self._folder.staging):
                self._disk.unlink(self._folder.staging / name)
        for name in self._disk.listdir(self._folder.scratch):
            path = self._folder.scratch / name
            if path.is_dir():  # an engine's
                shutil.rmtree(path)
            else:
                self._disk.unlink(path)

    def _check_file_system(self) -> None:
        hits = self._output / FileKind.HITS
        if os.stat(self._folder.staging).st_dev != os.stat(hits).st_dev:
            raise ConfigurationError(
                f"{self._folder.root} and {hits} are on different file systems: files could not be renamed"
            )

    def _compact(self, hour: int, engine: Engine, watcher: Watcher, *, wanted: bool) -> HourDone | None:
        began_s = time.monotonic()
        inputs, scratch = self.inputs(hour), self._folder.scratch
        advanced = watcher.advanced if wanted else _nothing
        places = scratch / "places.parquet"
        beside = [file for step in (-1, 1) for file in self.inputs(hour + step)]
        write_places(self._checked, self._disk, places, inputs, beside, progress=advanced)
        order = take_order(engine.judged(places), inputs, scratch)
        self._disk.unlink(places)
        if not wanted and not order.doubles:
            return None
        outputs = self._written(hour, inputs, order, advanced)
        decided = plan_of(hour, inputs, outputs, order.doubles, self.inventory.states)
        replace(self._places, decided)
        self._hours[hour] = [
            HourFile(file.final, hour, file.sha256, file.size, file.rows, "") for file in outputs
        ]
        return HourDone(
            hour=hour_name(hour),
            files=len(inputs),
            parts=sum(bool(file.instance) for file in inputs),
            rows=order.kept,
            doubles=order.doubles,
            size=sum(file.size for file in inputs),
            outputs=len(outputs),
            size_after=sum(file.size for file in outputs),
            seconds=time.monotonic() - began_s,
        )

    # ------------------------------------------------------------ writing

    def _written(
        self, hour: int, inputs: Sequence[HourFile], order: Order, progress: Callable[[int], None]
    ) -> list[StagedFile]:
        """Staged, durable, and counted. *Raises* VerificationError where rows are not what was decided."""
        sizes = sizes_of(self._checked, inputs, self._rules.memory_bytes)
        buckets = max(1, -(-order.kept // sizes.bucket))
        wanted = min(buckets, files_wanted(inputs, self._rules.target_bytes))
        rows_a_file = -(-buckets // wanted) * sizes.bucket
        names = compact_names(inputs, -(-order.kept // rows_a_file))
        chosen = _PlaceSum()
        groups = in_order(
            self._checked,
            self._disk,
            self._folder.scratch,
            inputs,
            order,
            sizes=sizes,
            chosen=chosen.add,
            progress=progress,
        )
        outputs: list[StagedFile] = []
        part: PartFile | None = None
        rows = 0
        try:
            for group in groups:
                part = part or self._part(names[len(outputs)])
                part.add(group)
                part.write()
                rows += group.num_rows
                if part.rows >= rows_a_file or rows == order.kept:
                    final = f"{hour_folder(self._rules.stream, hour)}/{part.name}"
                    outputs.append(part.finish(final, self._metadata(inputs, len(outputs) + 1, len(names))))
                    part = None
            self._disk.fsync_folder(self._folder.staging)
            self._count(inputs, outputs, order, chosen)
        finally:
            if part is not None:
                part.abandon()
        return outputs

    def _part(self, name: str) -> PartFile:
        mode = self._rules.mode
        return PartFile(self._disk, self._folder.staging, name, FileKind.HITS, HITS_SCHEMA, mode=mode)

    def _metadata(self, inputs: Sequence[HourFile], number: int, count: int) -> dict[str, str]:
        return {
            "collector.version": __version__,
            "collector.schema_version": str(SCHEMA_VERSION),
            "collector.stream": self._rules.stream,
            "collector.compaction": compaction_id(inputs),
            "collector.share": str(number),
            "collector.shares": str(count),
            "collector.inputs": json.dumps([file.path.rpartition("/")[2] for file in inputs]),
            **merged_metadata(self._checked.privacy[file] for file in inputs),
        }

    def _count(
        self, inputs: Sequence[HourFile], outputs: Sequence[StagedFile], order: Order, chosen: _PlaceSum
    ) -> None:
        """Rows in = rows out + doubles, and the rows on disk are the ones that were chosen."""
        before, after = sum(file.rows for file in inputs), sum(file.rows for file in outputs)
        written = _PlaceSum()
        for file in outputs:
            with contextlib.closing(OpenFile(self._disk, self._folder.staging / file.staged)) as opened:
                for place in Part(opened).places(ids=False):
                    written.add(place.block, place.line)
        if before != after + order.doubles or written.value != chosen.value:
            raise VerificationError(
                f"{before:,} rows went in, {after:,} came out and {order.doubles:,} are doubles: that does"
                " not add up, so nothing was replaced; this is a defect, please report it"
            )


class _PlaceSum:
    """The same for the same rows in any order, and hardly ever for others."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, block: NDArray[np.int64], line: NDArray[np.int32]) -> None:
        """*Shape*: n and n."""
        place = (block.astype(np.uint64) << np.uint64(24)) + line.astype(np.uint64)
        mixed = (place ^ place >> np.uint64(29)) * _FACTOR
        self.value = (self.value + int((mixed ^ mixed >> np.uint64(32)).sum(dtype=np.uint64))) % (1 << 64)


def _nothing(_: int) -> None:
    pass
