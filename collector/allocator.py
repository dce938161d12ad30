"""What glibc's allocator is told: by ``MALLOC_`` variables at a start, by ``mallopt`` afterwards."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Final

_PARAMETERS: Final = {
    "MALLOC_TRIM_THRESHOLD_": -1,
    "MALLOC_TOP_PAD_": -2,
    "MALLOC_MMAP_THRESHOLD_": -3,
    "MALLOC_ARENA_MAX": -8,
}
"""Source: glibc, malloc.h."""


def tell_allocator(variables: Mapping[str, str]) -> None:
    """For the rest of this process, as if it had begun with them. Other C libraries are told nothing."""
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        for name, value in variables.items():
            mallopt(_PARAMETERS[name], int(value))
