"""Loads the kernel, and says why where it cannot.

Run by whoever wants to know whether there is one, and by the decoder processes.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any, Final

from collector.decoder.kernel.build import LIBRARY, SOURCE, built_from, source_id

_POINTER: Final = ctypes.c_void_p
_INT64: Final = ctypes.c_int64
_INT32: Final = ctypes.c_int32


class Result(ctypes.Structure):
    """``KernelResult`` of ``kernel.cpp``."""

    _fields_ = [(name, _INT64) for name in ("rows", "next", "begin", "end", "position", "bytes", "mended")]


class View(ctypes.Structure):
    """``KernelView`` of ``kernel.cpp``."""

    _fields_ = [("values", _POINTER), ("validity", _POINTER), ("rows", _INT64)]


_BUILD: Final = "python -m collector.decoder.kernel.build"

_SIGNATURES: Final[dict[str, tuple[Any, list[Any]]]] = {
    "kernel_new": (_POINTER, [_POINTER, _INT32, ctypes.c_char_p]),
    "kernel_free": (None, [_POINTER]),
    "kernel_append": (_INT32, [_POINTER, _POINTER, _INT64, _INT64, _INT32, ctypes.POINTER(Result)]),
    "kernel_truncate": (None, [_POINTER, _INT64]),
    "kernel_view": (None, [_POINTER, _INT32, ctypes.POINTER(View)]),
    "kernel_finish": (_INT32, [_POINTER, _POINTER]),
}


class NoKernelError(Exception):
    """Why decoding is the plain way."""


@functools.cache
def load(path: Path = LIBRARY) -> ctypes.CDLL:
    """*Raises* NoKernelError."""
    if not path.exists():
        raise NoKernelError(f"it was not built; {_BUILD} builds it or says why it cannot")
    try:
        library = ctypes.CDLL(str(path))
        if SOURCE.exists() and built_from(library) != source_id():
            raise NoKernelError(f"{path.name} was built from another {SOURCE.name}; {_BUILD} builds it anew")
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise NoKernelError(f"{path.name} cannot be loaded: {error}; {_BUILD} builds it anew") from error
    return library


def absence() -> str:
    """Why there is no kernel; empty: there is one."""
    try:
        load()
    except NoKernelError as error:
        return str(error)
    return ""
