"""The coordinator: makes the pieces, starts them in order, ends them in order.

The only decider. It stands on what ``foundation`` recovered, starts the decoders and the reader,
lets a transport read, and drains. It never touches the bytes of a hit.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from collector.coordinator.children import Children
from collector.coordinator.clock import boottime_s
from collector.coordinator.committer import Committer, StorageThread
from collector.coordinator.connections import ConnectionBook
from collector.coordinator.files import Files, Unpack
from collector.coordinator.foundation import Foundation
from collector.coordinator.intake import Intake
from collector.coordinator.pipeline import Pipeline
from collector.coordinator.rejects import RejectsAlarm
from collector.coordinator.runlog import say_started, say_stopped
from collector.coordinator.shipping import Shipping
from collector.coordinator.status import StatusBook
from collector.coordinator.stream import Stream
from collector.coordinator.token_source import TokenSource
from collector.core.batching import BatchLimits
from collector.core.messages import Block, BlockDone
from collector.core.privacy import Privacy
from collector.core.proxy import Proxy
from collector.core.readiness import not_ready
from collector.core.reconnect import Policy, ReconnectSettings
from collector.core.reconnect_events import Exit
from collector.core.resends import ResendIndex
from collector.core.segments import Segments
from collector.core.status import Status
from collector.errors import ConfigurationError, ExitCode, RefusedError, StorageError
from collector.settings import Settings
from collector.storage.forgetting import forget_committed
from collector.storage.fs import DISK
from collector.storage.lastword import write_last_word
from collector.telemetry import log

SETTLE_INTERVAL_S: Final = 30.0
"""How often is looked whether an hour's rows of ``connections`` are final."""

Companion = Callable[["Coordinator"], Coroutine[Any, Any, None]]
"""Something that runs beside the collector and only looks: the live view."""

T = TypeVar("T")


class Coordinator:
    """One run of the collector over one foundation, on the event loop it is made in."""

    def __init__(
        self,
        settings: Settings,
        foundation: Foundation,
        *,
        environment: dict[str, str],
        ca_file: str,
        privacy: Privacy,
    ) -> None:
        self.settings = settings
        self.foundation = foundation
        self.started_s = time.monotonic()
        self.children = Children(
            settings, foundation, environment=environment, ca_file=ca_file, privacy=privacy
        )
        self.stop_wanted = asyncio.Event()
        """Set once, when the drain is to begin."""
        self._stop_reason = ""
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ledger = foundation.ledger
        self.committer = Committer(
            disk=DISK,
            state=foundation.state,
            output=settings.output.folder,
            mode=settings.output.mode,
            commit_log=foundation.commit_log,
            ledger=foundation.ledger,
            runs=foundation.runs,
            failed=self._failed,
        )
        self.pipeline = Pipeline(
            limits=BatchLimits(settings.parts.max_age_s, settings.parts.max_bytes),
            decoders=settings.run.decoders,
            start_decoder=self.children.start_decoder,
            committer=self.committer,
            index=ResendIndex(foundation.runs),
            committed=self._committed,
            done=self._done,
        )
        self.rejects = RejectsAlarm(foundation.ledger.stream)
        self.batches = 0
        """Committed in this run."""
        self.intake = self._make_intake()
        self.intake.keep_raw(keep=not privacy.hides)
        self.book = ConnectionBook(self.committer, self.pipeline)
        self.stream: Stream | None = None
        self.files: Files | None = None
        self.status: StatusBook | None = None
        """Of a live stream."""
        self.shipping: Shipping | None = None
        """Its process is a companion; after a drain it has what is left of the time."""
        self.stop_after_hits: int | None = None
        self._nothing_left = False

    def _make_intake(self) -> Intake:
        settings, foundation = self.settings, self.foundation
        recovered = foundation.journal_found
        return Intake(
            disk=DISK,
            journal=foundation.journal,
            quarantine=foundation.state.quarantine,
            watched=foundation.watched,
            segments=Segments(
                segment_bytes=settings.journal.segment_bytes,
                max_bytes=foundation.journal_bytes,
                next_segment=recovered.next_segment,
                last_block=dict(recovered.last_block),
                free=list(recovered.free),
            ),
            reserve_bytes=settings.journal.reserve_bytes,
            next_seq=recovered.next_seq,
            held_us=max([foundation.ledger.next_held_us, *(block.held_us for block in recovered.blocks)]),
            accepted_total=foundation.accepted_records,
            start_reader=self.children.start_reader,
            accepted=self._accepted,
            journal_full=self.pipeline.journal_full,
        )

    # ------------------------------------------------------------ the two things to run

    async def run_stream(
        self,
        *,
        api_key: str,
        tokens: TokenSource,
        static_token: bool,
        proxy: Proxy | None = None,
        stop_after_hits: int | None,
        stop_after_s: float | None,
        companions: Sequence[Companion] = (),
    ) -> ExitCode:
        """The live stream until told to stop, refused for good, or failed."""
        self.stop_after_hits = stop_after_hits
        self.status = StatusBook(self)
        if stop_after_s is not None:
            asyncio.get_running_loop().call_later(stop_after_s, self.stop, f"--stop-after {stop_after_s:g}")
        policy = Policy(
            ReconnectSettings(
                wait_s=self.settings.reconnect.wait_s,
                on_refusal=self.settings.reconnect.on_refusal,
                static_token=static_token,
                fingerprint=self.foundation.fingerprint,
            )
        )
        floor_thread = StorageThread("floor")
        stream = self.stream = Stream(
            settings=self.settings,
            api_key=api_key,
            tokens=tokens,
            proxy=proxy,
            policy=policy,
            floor=self.foundation.floor,
            floor_thread=floor_thread,
            intake=self.intake,
            committer=self.committer,
            disk=DISK,
            state_folder=self.foundation.state,
        )
        self.intake.transport = stream

        async def read() -> Exit:
            await self.intake.ready.wait()
            state, actions = policy.start(
                self.foundation.floor_record,
                existed=self.foundation.floor_existed,
                boot_id=self.foundation.boot_id,
                now=boottime_s(),
                orphaned=self.foundation.orphaned,
                full=True,  # until the reader is there and there is room for what it reads
            )
            exit_ = await stream.run(state, actions)
            self._stop_reason = self._stop_reason or exit_.words
            return exit_

        try:
            exit_ = await self._run(read, stop=stream.drain, companions=[*self.status.looks, *companions])
        finally:
            floor_thread.close()
        if exit_ is not None and exit_.code is not ExitCode.DONE:
            raise RefusedError(exit_.words)
        return ExitCode.DONE

    async def run_files(
        self, paths: Sequence[Path], *, unpack: Unpack | None = None, companions: Sequence[Companion] = ()
    ) -> ExitCode:
        """Saved files, each once, until all of them are committed.

        *Raises* ConfigurationError for those that are damaged, when everything else is committed.
        """
        files = self.files = Files(disk=DISK, intake=self.intake, committer=self.committer, unpack=unpack)
        self.intake.transport = files
        faults = await self._run(lambda: files.run(paths), stop=files.stop, companions=companions)
        if faults:
            raise ConfigurationError("\n".join(faults))
        return ExitCode.DONE

    def stop(self, reason: str) -> None:
        """Drain, then end."""
        self._stop_reason = self._stop_reason or reason
        self.stop_wanted.set()

    def leave_word(self, code: int, reason: str = "") -> Status:
        """What it was doing, and how it ended, for who asks when it is gone."""
        assert self.status is not None  # noqa: S101 - it read a live stream
        word = self.status.last(code, reason or self._stop_reason or "nothing left to do")
        try:
            write_last_word(DISK, self.foundation.state, word)
        except (OSError, StorageError) as error:
            log("attention.needed", reason=f"the last word could not be left: {error}")
        return word

    def not_ready(self) -> list[str]:
        """Why it does not do what it is there for, in words; empty: it is ready."""
        return not_ready(
            None if self.stream is None else self.stream.view(),
            rejects=self.rejects.watch,
            journal_full=self.intake.starved,
        )

    def age_s(self, block: Block) -> float:
        """Since it was accepted."""
        return max(0.0, time.time() - block.collected_at_us / 1e6)

    # ------------------------------------------------------------ the order of things

    async def _run(
        self,
        read: Callable[[], Awaitable[T]],
        *,
        stop: Callable[[], None],
        companions: Sequence[Companion],
    ) -> T | None:
        """Start everything, read, drain, stop everything. *Raises* the first failure of any part."""
        self._watch_signals()
        say_started(self.settings, self.foundation)
        tasks = [
            asyncio.create_task(self.pipeline.run()),
            asyncio.create_task(self.intake.run()),
            asyncio.create_task(self._settle_hourly()),
            asyncio.create_task(self._watch_failure()),
            *(asyncio.create_task(self._accompany(companion)) for companion in companions),
        ]
        main = asyncio.create_task(self._read_and_drain(read, stop))
        try:
            await asyncio.wait([main, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            result = await main
            say_stopped(self.ledger.totals, self._stop_reason, time.monotonic() - self.started_s)
            return result
        finally:
            self.intake.stop()
            self.pipeline.stop()
            main.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(main, *tasks, return_exceptions=True)
            self.committer.close()
            self.intake.close()
            if self._nothing_left:
                self._forget_journal()

    async def _read_and_drain(self, read: Callable[[], Awaitable[T]], stop: Callable[[], None]) -> T | None:
        self._accepted(tuple(self.foundation.journal_found.blocks))
        reading = asyncio.ensure_future(read())
        stopper = asyncio.create_task(self._stop_when_wanted(stop))
        try:
            await asyncio.wait([reading, stopper], return_when=asyncio.FIRST_COMPLETED)
            deadline_s = self._drain_deadline_s()
            async with asyncio.timeout_at(deadline_s):
                result = await reading
        except TimeoutError:  # no room for the reader to seal what it has: that was never accepted
            result = None
        finally:
            stopper.cancel()
            reading.cancel()
        await self._drain(deadline_s)
        if self.shipping is not None:
            await self.shipping.finish(deadline_s)
        return result

    def _drain_deadline_s(self) -> float | None:
        """Files that were read to their end are committed however long it takes."""
        if self.files is not None and not self.stop_wanted.is_set():
            return None
        return asyncio.get_running_loop().time() + self.settings.run.drain_s

    async def _stop_when_wanted(self, stop: Callable[[], None]) -> None:
        await self.stop_wanted.wait()
        log("drain.began", reason=self._stop_reason)
        stop()

    async def _drain(self, deadline_s: float | None) -> None:
        began_s = time.monotonic()
        hurry: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout_at(deadline_s) as limit:
                if deadline_s is None:
                    hurry = asyncio.create_task(self._stop_when_wanted(lambda: self._hurry(limit)))
                await self.committer.appended()
                await self.pipeline.drained()
                await self.book.settle(draining=True)
        except TimeoutError:
            pass
        finally:
            if hurry is not None:
                hurry.cancel()
        left = self.pipeline.left_blocks()
        self._nothing_left = not left
        log(
            "drain.ended",
            left_blocks=len(left),
            left_records=sum(block.records for block in left),
            duration_s=time.monotonic() - began_s,
        )

    def _forget_journal(self) -> None:
        """Everything in it is committed, and the reader is gone."""
        if self.settings.journal.durability == "memory":
            DISK.remove_folder(self.foundation.journal)
        elif self.children.privacy.hides:
            with suppress(StorageError):  # what is damaged the next start names
                forget_committed(
                    DISK, self.foundation.journal, self.foundation.state.quarantine, self.ledger.last_block
                )

    def _hurry(self, limit: asyncio.Timeout) -> None:
        """Everything is read; what is not committed in time is so by the next run."""
        limit.reschedule(asyncio.get_running_loop().time() + self.settings.run.drain_s)

    async def _accompany(self, companion: Companion) -> None:
        """A defect in what only looks on must not end the intake."""
        try:
            await companion(self)
        except Exception as error:  # noqa: BLE001
            log("attention.needed", reason=f"{companion.__name__} failed: {error!r}")
        await asyncio.Event().wait()  # until cancelled: its end is not the run's

    async def _settle_hourly(self) -> None:
        """Rows of hours that are over, also those that a crash left unwritten."""
        while True:
            await self.book.settle(draining=False)
            await self.committer.take_over_retired()
            await asyncio.sleep(SETTLE_INTERVAL_S)

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._signalled, name)

    def _signalled(self, name: signal.Signals) -> None:
        if self.stop_wanted.is_set():
            os._exit(128 + name)  # the children end by themselves: their parent is gone
        self.stop(name.name)

    async def _watch_failure(self) -> None:
        await self._failure

    def _failed(self, error: BaseException) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)

    # ------------------------------------------------------------ what the parts tell each other

    def _accepted(self, blocks: tuple[Block, ...]) -> None:
        if self.files is not None:
            self.files.accepted(blocks)
        self.pipeline.accepted(blocks)

    def _done(self, done: BlockDone) -> None:
        if self.stream is not None:
            self.rejects.block_done(done)

    def _committed(self, last: int) -> None:
        self.batches += 1
        self.intake.committed(last)
        if self.stop_after_hits is not None and self.ledger.totals.rows >= self.stop_after_hits:
            self.stop(f"--stop-after-hits {self.stop_after_hits}")
