"""``OpenRows`` by the compiled kernel.

Run by the decoder processes. Lines that the kernel refuses are repaired and given back to it, in their
places. Invariant: the rows and rejects are those of ``plain.PlainRows``.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collector.core.messages import Block
from collector.decoder.columns import Flags, Numbers
from collector.decoder.kernel.library import Result, View, load
from collector.decoder.patch import patch
from collector.decoder.plain import miscounted
from collector.decoder.repair import UNREADABLE, Refusal, move_everything, repair
from collector.decoder.rows import Appended, Reject
from collector.decoder.schema import EXTRA, FIELD_KINDS, ID_COLUMNS, WIRE_SCHEMA, Text, Variant
from collector.decoder.strict import Degree, Line
from collector.errors import ProtocolError

_DONE: Final = 0
_NO_MEMORY: Final = 1
_FULL: Final = 2
"""Codes of ``kernel.cpp``; those above refuse a line."""

_SCHEMA_BYTES: Final = 72
_ARRAY_BYTES: Final = 80
"""Of the structs of the Arrow C data interface."""

_PLACES: Final = {name: place for place, name in enumerate(WIRE_SCHEMA.names)}
_ID_BYTES: Final = 16
_INTEGER_BYTES: Final = 8


def shows_flags(names: Iterable[str]) -> bytes:
    """For each field whether its text shows booleans: odd, but all hits of a mobile site may have them."""
    return bytes(
        isinstance(kind := FIELD_KINDS.get(name), Text) and kind.variant is Variant.BOOLEAN for name in names
    )


def _thoroughly(line: Line) -> bytes | None:
    return patch(line, Degree.THOROUGH)


_RULES: Final[tuple[Callable[[Line], bytes | Refusal | None], ...]] = (_thoroughly, repair, move_everything)
"""How a refused line is mended: the first whose line the kernel takes."""


class KernelRows:
    """*Raises* NoKernelError when made where there is no kernel."""

    name = "kernel"

    def __init__(self) -> None:
        self._library = load()
        schema = (ctypes.c_byte * _SCHEMA_BYTES)()
        pa.struct(list(WIRE_SCHEMA))._export_to_c(ctypes.addressof(schema))  # noqa: SLF001 - as documented
        imported = pa.DataType._import_from_c  # noqa: SLF001
        try:
            shown = shows_flags(WIRE_SCHEMA.names)
            self._kernel = self._library.kernel_new(ctypes.addressof(schema), _PLACES[EXTRA], shown)
        finally:
            imported(ctypes.addressof(schema))  # which gives it back
        if not self._kernel:
            raise MemoryError("the kernel could not be started")
        weakref.finalize(self, self._library.kernel_free, self._kernel)
        self._result = Result()
        self.rows = 0

    @property
    def nbytes(self) -> int:
        return int(self._result.bytes)

    def append(self, payload: Line, block: Block, degree: Degree) -> Appended:
        del degree  # it looks at everything
        first = self.rows
        try:
            return self._append(payload, block)
        except BaseException:
            self._library.kernel_truncate(self._kernel, first)
            self.rows = first
            raise

    def _append(self, payload: Line, block: Block) -> Appended:
        text = np.frombuffer(payload, np.uint8)
        if len(text) and text[-1] != ord("\n"):
            raise miscounted(payload, block)
        rejects: list[Reject] = []
        repaired = line = at = 0
        while at < len(text):
            before = self.rows
            refused = self._take(text.ctypes.data, len(text), at, repaired=False)
            line += self.rows - before
            repaired += self._result.mended
            at = self._result.next
            if refused:
                sent = memoryview(payload)[self._result.begin : self._result.end]
                refusal = self._mend(sent)
                if refusal is None:
                    repaired += 1
                else:
                    rejects.append(Reject(line, refusal.reason, bytes(sent)))
                line += 1
        if line != block.records:
            raise miscounted(payload, block)
        lines = np.delete(np.arange(line, dtype=np.int32), [reject.line for reject in rejects])
        return Appended(lines, rejects, repaired)

    def _mend(self, line: Line) -> Refusal | None:
        """Append what a refused line is repaired to. Gives why it is a reject."""
        for rule in _RULES:
            text = rule(line)
            if isinstance(text, Refusal):
                return text
            if text is not None and not self._take(text + b"\n", len(text) + 1, 0, repaired=True):
                return None
        return UNREADABLE

    def _take(self, text: bytes | int, length: int, begin: int, *, repaired: bool) -> bool:
        """Append lines up to the first that is refused. Gives whether one was."""
        code = self._library.kernel_append(
            self._kernel, text, length, begin, repaired, ctypes.byref(self._result)
        )
        self.rows += self._result.rows
        if code == _NO_MEMORY:
            raise MemoryError("the kernel's columns")
        if code == _FULL:
            raise ProtocolError(
                f"a row group of {self.rows} rows and {self.nbytes} bytes has no room for more"
            )
        return bool(code != _DONE)

    def numbers(self, name: str, first: int) -> tuple[Numbers, Flags]:
        view = View()
        self._library.kernel_view(self._kernel, _PLACES[name], ctypes.byref(view))
        count = self.rows - first
        width = _ID_BYTES if name in ID_COLUMNS else _INTEGER_BYTES
        values = _copied(
            view.values + first * width, count * width, np.dtype("<u8" if width == _ID_BYTES else "<i8")
        )
        if width == _ID_BYTES:
            values = np.ascontiguousarray(values[::2])
        if not view.validity:
            return values, np.ones(count, np.bool_)
        bits = _copied(view.validity + first // 8, (first % 8 + count + 7) // 8, np.dtype(np.uint8))
        known = np.unpackbits(bits, bitorder="little")[first % 8 : first % 8 + count]
        return values, known.view(np.bool_)

    def take(self) -> pa.RecordBatch:
        array = (ctypes.c_byte * _ARRAY_BYTES)()
        if self._library.kernel_finish(self._kernel, ctypes.addressof(array)) != _DONE:
            raise MemoryError("the kernel's batch")
        self.rows = 0
        self._result.bytes = 0
        return pa.RecordBatch._import_from_c(ctypes.addressof(array), WIRE_SCHEMA)  # noqa: SLF001 - as documented


def _copied(address: int, size_bytes: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The kernel's buffers move as they grow, and go to Arrow with the batch."""
    values = np.empty(size_bytes // dtype.itemsize, dtype)
    ctypes.memmove(values.ctypes.data, address, size_bytes)
    return values
