"""The replacement of an hour's files by what they were compacted into, and its completion after a crash.

Used by ``compact``, which holds the compaction's lock. The order, each step durable before the next:

1. the plan: *the decision*; 2. ``retired/`` in the state folder of each replaced part; 3. the new files get
their names; 4. a table that lists the old ones lists the new ones instead; 5. the hour's record; 6. the old
files go; 7. the plan goes.

Invariant: no row is ever missing from what is to be seen, and a plan that is there is finished by
``finish`` whatever happened. Between 3 and 6 rows are to be seen twice: a reader can tell two copies of a
row by what names it for ever, and could not tell that one is missing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from collector.core.compaction import HourFile, compaction_id
from collector.core.messages import FileKind, StagedFile
from collector.errors import StorageError
from collector.lake.elsewhere import Elsewhere
from collector.lake.inventory import hour_name
from collector.storage.compacted import (
    CompactionFolder,
    HourRecord,
    InputFile,
    KnownFile,
    OutputFile,
    PlanRecord,
    read_plan,
    write_record,
)
from collector.storage.fs import Disk
from collector.storage.layout import StateFolder
from collector.storage.publish import NotAsDecidedError, publish
from collector.storage.retired import RetiredPart, RetiredRecord, write_retired

REASON = "compacted"


def plan_of(
    hour: int,
    inputs: Sequence[HourFile],
    outputs: Sequence[StagedFile],
    doubles: int,
    states: dict[str, StateFolder],
) -> PlanRecord:
    """``states``: by instance, of every part among the inputs."""
    return PlanRecord(
        key=compaction_id(inputs),
        hour=hour_name(hour),
        outputs=tuple(
            OutputFile(file.final, file.sha256.hex(), file.size, file.rows, file.staged) for file in outputs
        ),
        inputs=tuple(
            InputFile(
                file.path,
                file.sha256.hex(),
                file.size,
                file.rows,
                os.path.abspath(states[file.instance].root) if file.instance else "",
                file.instance,
            )
            for file in inputs
        ),
        doubles=doubles,
    )


@dataclass(frozen=True, slots=True)
class Places:
    """Where files are replaced."""

    disk: Disk
    folder: CompactionFolder
    output: Path
    mode: int
    """Of the new ones."""
    elsewhere: Elsewhere


def replace(places: Places, plan: PlanRecord) -> None:
    """The outputs are staged and durable.

    *Raises*: NoSpaceError, StorageError, ShipError; then ``finish`` goes on.
    """
    write_record(places.disk, places.folder.plan, plan)
    _carry_out(places, plan, redo=False)


def finish(places: Places) -> str:
    """What a crash left of a replacement that was decided: it is done now. Gives its hour, or "".

    *Raises*: DamagedError; StorageError where a file of it is gone; NoSpaceError; ShipError.
    """
    plan = read_plan(places.disk, places.folder)
    if plan is None:
        return ""
    _carry_out(places, plan, redo=True)
    return plan.hour


def _carry_out(places: Places, plan: PlanRecord, *, redo: bool) -> None:
    disk, folder, output = places.disk, places.folder, places.output
    if redo:
        _check_outputs(disk, folder, output, plan)
    for state in sorted({file.state for file in plan.inputs if file.state}):
        _retire(disk, StateFolder(Path(state)), plan)
    staged = [
        StagedFile(FileKind.HITS, file.staged, file.path, file.size, file.digest, file.rows)
        for file in plan.outputs
    ]
    try:
        publish(disk, folder, output, staged, mode=places.mode, redo=redo)
    except NotAsDecidedError as error:
        raise _unfinished(disk, output, plan, str(error)) from error
    places.elsewhere.replace(plan)
    _record(disk, folder, plan)
    folders = {(output / file.path).parent for file in plan.inputs}
    for file in plan.inputs:
        try:
            disk.unlink(output / file.path)
        except FileNotFoundError:  # before a crash, or by whoever retired it too
            continue
    for parent in sorted(folders):
        disk.fsync_folder(parent)
    disk.unlink(folder.plan)
    disk.fsync_folder(folder.root)


def _retire(disk: Disk, state: StateFolder, plan: PlanRecord) -> None:
    """Said in the state folder whose log names the parts; said twice it changes nothing."""
    disk.make_folder(state.retired)
    parts = tuple(
        RetiredPart(file.path, file.sha256) for file in plan.inputs if file.state == str(state.root)
    )
    replaced_by = tuple(file.path for file in plan.outputs)
    write_retired(disk, state, f"{REASON}-{plan.key}", RetiredRecord(parts, REASON, replaced_by))


def _record(disk: Disk, folder: CompactionFolder, plan: PlanRecord) -> None:
    path = folder.hour_record(plan.hour)
    if plan.outputs:
        files = tuple(KnownFile(file.path, file.sha256, file.size, file.rows) for file in plan.outputs)
        inputs = tuple(KnownFile(file.path, file.sha256, file.size, file.rows) for file in plan.inputs)
        write_record(disk, path, HourRecord(files, inputs, plan.doubles))
    elif disk.exists(path):  # every row was a resend of a row in another hour
        disk.unlink(path)
        disk.fsync_folder(folder.files)


def _check_outputs(disk: Disk, folder: CompactionFolder, output: Path, plan: PlanRecord) -> None:
    """Before a part is said to be replaced."""
    for file in plan.outputs:
        places = (folder.staging / file.staged, output / file.path)
        if not any(disk.exists(place) for place in places):
            raise _unfinished(disk, output, plan, f"neither {places[0]} nor {places[1]} exists")


def _unfinished(disk: Disk, output: Path, plan: PlanRecord, why: str) -> StorageError:
    there = sum(disk.exists(output / file.path) for file in plan.inputs)
    return StorageError(
        f"the compaction of {plan.hour} was decided and cannot be finished: {why}; put that file back from a"
        f" copy (of what it was made of, {there:,} of {len(plan.inputs):,} files are still there)"
    )
