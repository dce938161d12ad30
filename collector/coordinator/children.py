"""How the reader and the decoders are started: what each is told, and that it is written down.

Runs in the coordinator. Invariant: whoever was started stands in the state folder's record of children
before anybody waits for it, so that the next collector can end what this one leaves behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from collector.coordinator.foundation import Foundation
from collector.coordinator.supervisor import Child, start_child
from collector.core.framing import BLOCK_BYTES
from collector.core.messages import FromDecoder, FromReader
from collector.core.privacy import Privacy
from collector.settings import Settings

READER: Final = "reader"
BLOCKS_PER_SEGMENT: Final = 4
"""At least: a segment that cannot hold its blocks would be made larger than it is counted."""


def decoder_name(slot: int) -> str:
    return f"decoder {slot}"


class Children:
    """Starts them with the settings of the moment."""

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
        self.privacy = privacy
        self._foundation = foundation
        self._environment = environment
        self._ca_file = ca_file
        self.newest: dict[str, Child[Any]] = {}
        """By name; it may be gone, and the next not started yet."""
        self.starts: Counter[str] = Counter()

    async def start_reader(self, next_seq: int) -> Child[FromReader]:
        journal = self.settings.journal
        arguments = {
            "journal": self._foundation.journal,
            "next-seq": next_seq,
            "ca-file": self._ca_file,
            "segment-bytes": journal.segment_bytes,
            "block-bytes": min(BLOCK_BYTES, journal.segment_bytes // BLOCKS_PER_SEGMENT),
            "max-record-bytes": journal.max_record_bytes,
        }
        return await self._start(READER, "collector.reader.process", arguments, FromReader)

    async def start_decoder(self, name: str) -> Child[FromDecoder]:
        foundation = self._foundation
        arguments = {
            "journal": foundation.journal,
            "staging": foundation.state.staging,
            "stream": foundation.ledger.stream,
            "instance": foundation.ledger.instance,
            "durability": self.settings.journal.durability,
            "mode": self.settings.output.mode,
            "kernel": self.settings.decode.kernel,
        }
        privacy = self.privacy  # with the settings of this moment, however long the start takes
        child = await self._start(name, "collector.decoder.process", arguments, FromDecoder)
        child.send(privacy)
        return child

    def take(self, settings: Settings, privacy: Privacy) -> None:
        """For those that are started from now on."""
        self.settings, self.privacy = settings, privacy

    def ended(self, slots: Iterable[int]) -> None:
        """The decoders in these were replaced on purpose: no restart is counted for it."""
        self.starts.subtract(map(decoder_name, slots))

    def forget(self, slots: Iterable[int]) -> None:
        """There is no decoder any more in these."""
        for slot in slots:
            self.newest.pop(decoder_name(slot), None)

    async def _start(self, name: str, module: str, arguments: dict[str, object], incoming: Any) -> Child[Any]:
        flat = [text for key, value in arguments.items() for text in (f"--{key}", str(value))]
        lock = self._foundation.lock
        child = await start_child(
            name,
            module,
            flat,
            incoming,
            environment=self._environment,
            inherited_fds=[lock.children_fd],
            heartbeat_limit_s=self.settings.run.heartbeat_limit_s,
        )
        self.newest[name] = child
        self.starts[name] += 1
        lock.record_children(child.pid for child in self.newest.values())
        return child
