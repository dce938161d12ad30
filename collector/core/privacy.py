"""What is hidden of every hit, and the key that hashes are made with.

Imported by the coordinator, which sends it, and by the decoders, which obey. Invariant: the key is in no
representation and no file; its fingerprint tells two keys apart and says nothing else about them.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

_FINGERPRINT_OF: Final = b"livestream-collector privacy key"
_FINGERPRINT_CHARACTERS: Final = 8
METADATA_PREFIX: Final = "collector.privacy_"
_MIXED: Final = f"{METADATA_PREFIX}mixed"


class Privacy(msgspec.Struct, frozen=True, tag=True):
    """The first message to a decoder, which decodes nothing before it. Names as ``[privacy]`` has them."""

    drop: tuple[str, ...] = ()
    hash: tuple[str, ...] = ()
    key: bytes = b""
    """Of the hashes; without any, empty."""

    @property
    def hides(self) -> bool:
        return bool(self.drop or self.hash)

    def digest(self, value: bytes) -> str:
        """HMAC-SHA-256 in hexadecimal: what stands in the place of a hashed value."""
        return hmac.digest(self.key, value, "sha256").hex()

    def metadata(self) -> dict[str, str]:
        """What a part says of it; nothing where nothing is hidden."""
        if not self.hides:
            return {}
        lists = {"dropped": " ".join(self.drop), "hashed": " ".join(self.hash)}
        if self.hash:
            lists["key"] = self.digest(_FINGERPRINT_OF)[:_FINGERPRINT_CHARACTERS]
        return {f"{METADATA_PREFIX}{name}": text for name, text in lists.items() if text}

    def __repr__(self) -> str:
        return f"Privacy(drop={self.drop}, hash={self.hash}, key=***)"


NOTHING_HIDDEN: Final = Privacy()


def merged_metadata(parts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What a file made of these parts says: what each of them says, or that they differ and in what.

    Takes all the metadata of each, also of files that were made of several before.
    """
    found: list[dict[str, str]] = []
    for part in parts:
        own = {key: text for key, text in part.items() if key.startswith(METADATA_PREFIX)}
        accounts = json.loads(own[_MIXED]) if _MIXED in own else [own]
        found += [each for each in accounts if each not in found]
    if len(found) <= 1:
        return dict(*found)
    return {_MIXED: json.dumps(sorted(found, key=lambda said: sorted(said.items())))}
