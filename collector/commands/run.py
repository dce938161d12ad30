"""``livestream-collector run``: the collector, with a live view on a terminal."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeVar

import uvloop

from collector.allocator import tell_allocator
from collector.commands import facts
from collector.coordinator.foundation import lay_foundation
from collector.coordinator.notify import Notify
from collector.coordinator.process import Companion, Coordinator
from collector.coordinator.reload import Reload
from collector.coordinator.retention import Retention
from collector.coordinator.shipping import Shipping
from collector.coordinator.site import serve_status
from collector.coordinator.status import failed_start
from collector.coordinator.token import token_source
from collector.credentials import conceal_store_secrets, scrubbed_environment
from collector.errors import CollectorError, ExitCode, StorageError
from collector.escaping import printable, without_secrets
from collector.given import Given, Layers
from collector.hangup import Hangup
from collector.ipc.child import forbid_core_dumps
from collector.lake.plan import require_lake, ship_plan
from collector.proxy import find_proxy
from collector.settings import Settings
from collector.storage.fs import DISK
from collector.storage.lastword import note_failed_start
from collector.storage.layout import StateFolder
from collector.storage.recovery import WaysOn
from collector.telemetry import log
from collector.trust import find_ca_file

T = TypeVar("T")
MOST_CHARACTERS: Final = 1000

ALLOCATOR: Final = {
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "4194304",
    "MALLOC_ARENA_MAX": "2",
}
"""Arrays of megabytes come when a run of ids is opened or merged. glibc raises the threshold once the first
is freed, and the next ones lie in heaps that small objects keep from shrinking. One that is set stays.
"""


def run(
    given: Given,
    *,
    layers: Layers,
    hangup: Hangup,
    stop_after_hits: int | None,
    stop_after_s: float | None,
    terminal: bool,
    ways_on: WaysOn,
) -> int:
    """Until told to stop. *Raises* ``CollectorError`` for whatever ends it otherwise."""
    forbid_core_dumps()  # one would hold the token
    settings, credentials = given.settings, given.credentials
    assert credentials is not None  # noqa: S101 - loaded for a run
    ca_file = find_ca_file(str(settings.tls.ca_file or ""), os.environ)
    proxy = find_proxy(settings.proxy.url, settings.proxy.user, os.environ)
    plan = ship_plan(settings)
    if plan is not None:
        require_lake(plan)
        conceal_store_secrets(os.environ)
    notify = Notify.taken_from(os.environ)
    companions: list[Companion] = [*notify.companions]
    if terminal:
        from collector.commands.view import live_view  # noqa: PLC0415 - rich takes 0.1 s

        companions.append(live_view)
    with notify.last_words(), ExitStack() as stack:
        with notify.starting(), _failure_noted(settings):
            foundation = stack.enter_context(lay_foundation(settings, credentials, ways_on))
        if stop_after_hits is not None and foundation.ledger.totals.rows >= stop_after_hits:
            log("run.stopped", reason=f"{foundation.ledger.totals.rows} rows are committed already")
            return ExitCode.DONE

        async def collect() -> ExitCode:
            tokens = token_source(settings, credentials, ca_file=ca_file, proxy=proxy)

            async def keep_token_fresh(_: Coordinator) -> None:
                await tokens.keep_fresh()

            reload = Reload(hangup, layers, given, tokens, telling=notify.reloading, terminal=terminal)
            coordinator = Coordinator(
                settings,
                foundation,
                environment=scrubbed_environment(os.environ),
                ca_file=ca_file,
                privacy=given.privacy,
            )
            retention = Retention(coordinator)
            if plan is not None:
                shipping = Shipping(plan, foundation.ledger.instance, os.environ)
                coordinator.shipping = shipping
                companions.append(shipping.keep_shipping)
                retention = Retention(coordinator, may_go=shipping.may_go)
            try:
                code = await coordinator.run_stream(
                    api_key=credentials.api_key.reveal(),
                    tokens=tokens,
                    static_token=credentials.is_static,
                    proxy=proxy,
                    stop_after_hits=stop_after_hits,
                    stop_after_s=stop_after_s,
                    companions=[
                        reload.watch,
                        serve_status,
                        *companions,
                        keep_token_fresh,
                        retention.retire_outdated,
                    ],
                )
            except BaseException as error:
                coordinator.leave_word(*ended_by(error))
                raise
            word = coordinator.leave_word(code)
            if terminal:  # the view is gone, and its events were not written
                sys.stderr.write(f"{word.sentence}\n{facts.committed(word)} in {word.output}\n")
            return code

        return on_loop(collect())


@contextmanager
def _failure_noted(settings: Settings) -> Iterator[None]:
    """What is damaged or cannot be written is this state folder's affair; a setting, or its user, is not."""
    try:
        yield
    except StorageError as error:
        status = failed_start(settings, *ended_by(error))
        note_failed_start(DISK, StateFolder(settings.state.folder), status)
        raise


def ended_by(error: BaseException) -> tuple[int, str]:
    """The exit code that it leads to, and in words why."""
    first = first_failure(error) if isinstance(error, BaseExceptionGroup) else error
    if isinstance(first, CollectorError):
        return first.exit_code, printable(without_secrets(str(first)), MOST_CHARACTERS)
    words = f"a defect of ours ({type(first).__name__}): {first}"
    return ExitCode.DEFECT, printable(without_secrets(words), MOST_CHARACTERS)


class LibraryLines(logging.Handler):
    """What libraries log: without a handler Python writes it as it is, secrets and escapes with it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        log("library.warned", name=record.name, reason=self.format(record))


def on_loop(work: Coroutine[Any, Any, T]) -> T:
    """Runs it on uvloop; of several failures at once the first of ours counts."""
    logging.basicConfig(handlers=[LibraryLines()])
    give_memory_back()
    gc.freeze()  # what is imported is no garbage: collections, that of the exit first, need not look at it
    try:
        return uvloop.run(work)
    except BaseExceptionGroup as group:
        raise first_failure(group) from group


def give_memory_back() -> None:
    """To the system, what this process frees: it lives for months. A child has settings of its own."""
    tell_allocator(ALLOCATOR)


def first_failure(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error with an exit code of its own, else the first there is."""
    flat: list[BaseException] = []
    todo: list[BaseException] = [group]
    while todo:
        error = todo.pop(0)
        if isinstance(error, BaseExceptionGroup):
            todo.extend(error.exceptions)
        else:
            flat.append(error)
    return next((error for error in flat if isinstance(error, CollectorError)), flat[0])
