"""What a fuzz target is, how valid inputs are bent, and how inputs are kept as text.

A target is a judge of bytes: it returns when they gave a documented error or a right answer, and raises for
anything else. Inputs start as valid ones, since random bytes never get past the first checksum.
"""

from __future__ import annotations

import re
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import msgspec
from hypothesis import HealthCheck, Verbosity, given, settings
from hypothesis import strategies as st

from collector.storage.fs import Disk

CORPUS = Path(__file__).parents[1] / "corpus"
CPU_S = 20.0
"""What one input may cost. Far above what any needs: a loaded machine must not look like a hang."""

HEX_BYTES = 32
RUN = re.compile(rb"(.)\1{32,}", re.DOTALL)
RUN_LINE = re.compile(r"\*(\d+) ([0-9a-f]{2})")
SHOWN = 2000
"""Characters of an input in a report."""


@dataclass(frozen=True)
class Target:
    """``judge`` raises for a defect; ``inputs`` makes bent inputs; ``seeds`` are whole ones, by name."""

    name: str
    judge: Callable[[bytes], None]
    seeds: dict[str, bytes]
    inputs: st.SearchStrategy[bytes]
    everyday: int = 100
    """Examples a day; ``--all`` takes forty times as many."""

    def examples(self, count: int, *, seed: int | None = None) -> None:
        """Judges as many bent inputs. *Raises* what the smallest one that fails raises."""
        judged = given(self.inputs)(self.check)
        quiet = settings(
            max_examples=count,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
            **({} if seed is None else {"database": None}),
        )
        quiet(judged if seed is None else hypothesis.seed(seed)(judged))()

    def check(self, data: bytes) -> None:
        """*Raises* what is a defect, with the input as the corpus would keep it."""
        try:
            with cpu_limit(CPU_S):
                self.judge(data)
        except Exception as error:
            text = data.decode("ascii") if _is_text(data) else shown(data)
            error.add_note(f"target {self.name}, input of {len(data)} bytes:\n{text[:SHOWN]}")
            error.fuzz_input = data
            raise


class QuickDisk(Disk):
    """Nothing is really synced: the power does not fail here."""

    def fsync(self, fd: int) -> None:
        pass

    def fdatasync(self, fd: int) -> None:
        pass

    def fsync_folder(self, path: Any) -> None:
        pass


DISK = QuickDisk()


@contextmanager
def cpu_limit(limit_s: float) -> Iterator[None]:
    """A hang that burns the processor ends as an error; one that sleeps is pytest's to end."""

    def stop(*_: object) -> None:
        raise AssertionError(f"took more than {limit_s:g} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir="/dev/shm") as name:
        yield Path(name)


# ---------------------------------------------------------------- several files as one input

Files = list[tuple[str, bytes]]


def packed(files: Iterable[tuple[str, bytes]]) -> bytes:
    return msgspec.msgpack.encode(list(files))


def unpacked(data: bytes) -> Files:
    """Nothing where it is no such input: the fuzzer bends files, not this container."""
    try:
        return msgspec.msgpack.decode(data, type=list[tuple[str, bytes]])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []


def snapshot(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


# ---------------------------------------------------------------- bending

INTERESTING = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**63, 2**64 - 1]


@st.composite
def bent(draw: st.DrawFn, seeds: Sequence[bytes], most: int = 5) -> bytes:
    """A seed after some of: a bit flipped, bytes deleted, inserted, repeated, zeroed, cut, spliced."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, most))):
        data = draw(st.sampled_from(BENDS))(draw, data, seeds)
    return data


@st.composite
def bent_files(draw: st.DrawFn, seeds: Sequence[bytes], names: st.SearchStrategy[str]) -> bytes:
    """As ``bent``, for one or two files of several; files also vanish, change places and come twice."""
    files = unpacked(draw(st.sampled_from(seeds)))
    contents = [content for _, content in files] or [b""]
    for _ in range(draw(st.integers(0, 2))):
        if not files:
            break
        at = draw(st.integers(0, len(files) - 1))
        name, content = files[at]
        match draw(st.sampled_from(["bend", "bend", "bend", "drop", "rename", "copy", "swap"])):
            case "bend":
                files[at] = (name, draw(bent([content, content, *contents], 4)))
            case "drop":
                del files[at]
            case "rename":
                files[at] = (draw(names), content)
            case "copy":
                files.append((draw(names), content))
            case "swap":
                other = draw(st.integers(0, len(files) - 1))
                files[at], files[other] = (name, files[other][1]), (files[other][0], content)
    return packed(dict(files).items())


def _place(draw: st.DrawFn, data: bytes) -> int:
    """Anywhere, or where something begins: formats align."""
    at = draw(st.integers(0, len(data)))
    return at - at % 8 if draw(st.booleans()) else at


def _span(draw: st.DrawFn, data: bytes) -> tuple[int, int]:
    begin = _place(draw, data)
    return begin, min(len(data), begin + draw(st.integers(1, 64) | st.integers(1, 4096)))


def _flip(draw: st.DrawFn, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    if not data:
        return data
    at = min(_place(draw, data), len(data) - 1)
    return data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]


def _delete(draw: st.DrawFn, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    begin, end = _span(draw, data)
    return data[:begin] + data[end:]


def _insert(draw: st.DrawFn, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    at = _place(draw, data)
    return data[:at] + draw(st.binary(min_size=1, max_size=16)) + data[at:]


def _repeat(draw: st.DrawFn, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    begin, end = _span(draw, data)
    return data[:end] + data[begin:end] * draw(st.integers(1, 3)) + data[end:]


def _zero(draw: st.DrawFn, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    begin, end = _span(draw, data)
    return data[:begin] + bytes(end - begin) + data[end:]


def _cut(draw: st.DrawFn, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    return data[: _place(draw, data)]


def _extend(draw: st.DrawFn, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    return data + bytes(draw(st.integers(1, 4096)))


def _splice(draw: st.DrawFn, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """The end of another, or a piece of it in the same place: what a recycled file looks like."""
    other = draw(st.sampled_from(seeds))
    begin, end = _span(draw, other)
    return (
        data[:begin] + other[begin:] if draw(st.booleans()) else data[:begin] + other[begin:end] + data[end:]
    )


def _number(draw: st.DrawFn, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    at, size = _place(draw, data), draw(st.sampled_from([1, 2, 4, 8]))
    number = draw(st.sampled_from(INTERESTING)) & (1 << 8 * size) - 1
    return data[:at] + number.to_bytes(size, draw(st.sampled_from(["little", "big"]))) + data[at + size :]


BENDS = [_flip, _flip, _delete, _insert, _repeat, _zero, _cut, _extend, _splice, _number]


# ---------------------------------------------------------------- inputs as text


def shown(data: bytes) -> str:
    """Hexadecimal lines, long runs of one byte as ``*<count> <byte>``."""
    lines: list[str] = []
    at = 0
    for run in RUN.finditer(data):
        lines += _hex_lines(data[at : run.start()])
        lines.append(f"*{len(run[0])} {run[1].hex()}")
        at = run.end()
    return "".join(f"{line}\n" for line in [*lines, *_hex_lines(data[at:])])


def _hex_lines(data: bytes) -> list[str]:
    return [data[at : at + HEX_BYTES].hex() for at in range(0, len(data), HEX_BYTES)]


def read_shown(text: str) -> bytes:
    """Lines that begin with ``#`` say what the input is."""
    lines = [line for line in text.split("\n") if not line.startswith("#")]
    runs = (RUN_LINE.fullmatch(line) for line in lines)
    return b"".join(
        bytes.fromhex(run[2]) * int(run[1]) if run else bytes.fromhex(line)
        for run, line in zip(runs, lines, strict=True)
    )


def _is_text(data: bytes) -> bool:
    return all(byte in b"\n\t" or 0x20 <= byte < 0x7F for byte in data)


def kept(name: str) -> dict[str, bytes]:
    """The corpus of a target: ``.txt`` files as they are, ``.hex`` files as ``shown`` writes them."""
    found = {}
    for path in sorted((CORPUS / name).glob("*")):
        found[path.name] = path.read_bytes() if path.suffix == ".txt" else read_shown(path.read_text())
    return found


def keep(name: str, label: str, data: bytes) -> Path:
    """Put an input into the corpus, as text where it is text."""
    path = CORPUS / name / f"{label}.{'txt' if _is_text(data) else 'hex'}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if _is_text(data):
        path.write_bytes(data)
    else:
        path.write_text(shown(data))
    return path
