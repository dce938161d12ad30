"""The proof for what was shipped: every committed part is in the store, or somebody said that he took it.

Run by ``verify --remote``. Invariant: it changes nothing, takes no lock, and asks the store for each part by
name; a listing, which may be late or foreign, is never believed.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from collector.core.messages import StagedFile
from collector.core.shipping import Deliveries, ShipPlan
from collector.lake.gone import SHIPPED, Gone
from collector.lake.store import Store, Stored, open_store, uri_of
from collector.storage.archive import all_entries
from collector.storage.fs import Disk
from collector.storage.layout import StateFolder
from collector.storage.shipped import read_progress
from collector.storage.verify.findings import Finding, Kind, Report
from collector.storage.verify.proof import Watcher


def verify_remote(
    disk: Disk, state: StateFolder, plan: ShipPlan, report: Report, *, read: bool, watcher: Watcher
) -> None:
    """Adds to the report. *Blocks* for one request per part; ``read``: for a download of each, too.

    *Raises*: ShipError when the store is not reached; DamagedError.
    """
    store = open_store(plan.url, endpoint=plan.endpoint, region=plan.region)
    parts, waiting = _expected(disk, state, plan)
    gone, left_out = Gone(disk, state), 0
    watcher.begun(sum(file.size for file in parts))
    with ThreadPoolExecutor(plan.uploads, thread_name_prefix="verify") as pool:
        for file, finding in zip(parts, pool.map(partial(_check, store, read=read), parts), strict=True):
            watcher.advanced(file.size)
            if finding is None:
                continue
            if finding.kind is Kind.REMOTE_MISSING and gone.reason(file.final) not in {None, SHIPPED}:
                left_out += 1
            else:
                report.findings.append(finding)
    how = "read and hashed" if read else "by size and recorded hash"
    report.notes.append(f"in {plan.url}: {len(parts):,} parts looked at, {how}")
    if waiting:
        report.notes.append(f"{waiting:,} parts are not shipped yet")
    if left_out:
        report.notes.append(f"{left_out:,} parts were taken away before they were shipped")


def _expected(disk: Disk, state: StateFolder, plan: ShipPlan) -> tuple[list[StagedFile], int]:
    """Parts that are to be there by the log and the shipping's own note, and how many are still to go."""
    progress = read_progress(disk, state)
    out = progress.entry if progress is not None and progress.url == plan.url else 0
    deliveries, parts, waiting = Deliveries(), list[StagedFile](), 0
    for number, entry in all_entries(disk, state):
        delivery = deliveries.fold(number, entry)
        if delivery is not None and delivery.entry <= out:
            parts += delivery.files
        elif delivery is not None:
            waiting += len(delivery.files)
    return parts, waiting


def _check(store: Store, file: StagedFile, *, read: bool) -> Finding | None:
    where = uri_of(store.url, file.final)
    found = store.find(file.final)
    if found is None:
        return Finding(Kind.REMOTE_MISSING, where, "is not there", f"a part of {file.rows:,} rows")
    if read and found.size == file.size:
        found = Stored(found.size, hashlib.sha256(store.read(file.final)).digest())
    if found != Stored(file.size, file.sha256):
        return Finding(Kind.REMOTE, where, _words(found), _words(Stored(file.size, file.sha256)))
    return None


def _words(stored: Stored) -> str:
    sha256 = "without a recorded sha256" if stored.sha256 is None else f"sha256 {stored.sha256.hex()}"
    return f"{stored.size} bytes, {sha256}"
