"""From a result of ``scripts/bench`` (one JSON file of pytest-benchmark) to figures. Pure; prints nothing.

A record of the file is one round of one benchmark. A figure is all rounds of it: what they have in common
is the group, the test and its parameters without the round. Of its rounds a figure shows

- the lowest ``cpu_us_per_hit``, and the CPU time by process and ``written_bytes`` of that same round, so that
  they add up: noise only ever adds CPU time. With and without the start it is the lowest of each;
- the highest ``hits_per_s...``, for the same reason;
- the highest of elapsed times (``..._s``) and of memory (``peak_bytes``, ``mapped_bytes``): a bound holds in
  every round or not at all.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

COST = "cpu_us_per_hit"
ROUND = "round_"
INDEPENDENT = ("cpu_us_per_hit_steady", "cpu_us_per_hit_whole")
RATE = "hits_per_s"
MEMORY = ("peak_bytes", "mapped_bytes")
SHORTEST_COMMIT = 7


class ResultError(Exception):
    """Raised when a file is no result of ``scripts/bench``. The message says what was expected."""


@dataclass(frozen=True, slots=True)
class Figure:
    group: str
    """``stage: <name>``, ``whole: <name>``, ``peer: <name>`` or ``growth: <name>``."""
    test: str
    params: Mapping[str, Any]
    costs_us: tuple[float, ...]
    """CPU time per hit of each round."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.group.partition(": ")[0]

    @property
    def title(self) -> str:
        return self.group.partition(": ")[2]

    @property
    def label(self) -> str:
        """What tells this figure from the others of its group."""
        return ", ".join(
            str(value) if isinstance(value, str) else f"{name} {number_text(value)}"
            for name, value in sorted(self.params.items())
        )

    @property
    def name(self) -> str:
        return f"{self.group} ({self.label})" if self.params else self.group

    @property
    def key(self) -> tuple[str, str, str]:
        return self.group, self.test, self.label

    @property
    def cost_us(self) -> float:
        return min(self.costs_us)

    @property
    def spread(self) -> float | None:
        """How far the middle round lies above the best, relative to it; None: there was one round only."""
        if len(self.costs_us) < 2 or not self.cost_us:
            return None
        return statistics.median(self.costs_us) / self.cost_us - 1


@dataclass(frozen=True, slots=True)
class Result:
    path: Path
    measured_at: str
    commit: str
    """Shortened; ``+`` behind it: with changes that were not committed."""
    cores: int | None
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    is_quick: bool
    figures: tuple[Figure, ...]

    def of_kind(self, kind: str) -> list[Figure]:
        return [figure for figure in self.figures if figure.kind == kind]

    def of_group(self, group: str) -> list[Figure]:
        return [figure for figure in self.figures if figure.group == group]

    def find(self, group: str, *values: Any) -> Figure | None:
        """The figure of the group whose parameters have all these values; None: not measured."""
        wanted = [str(value) for value in values]
        for figure in self.of_group(group):
            has = [str(value) for value in figure.params.values()]
            if all(value in has for value in wanted):
                return figure
        return None


class _Record(msgspec.Struct):
    name: str
    extra_info: dict[str, Any]
    group: str | None = None
    params: dict[str, Any] | None = None


class _File(msgspec.Struct):
    machine_info: dict[str, Any]
    commit_info: dict[str, Any]
    benchmarks: list[_Record]
    datetime: str = ""


def read(path: Path) -> Result:
    """Raises ResultError."""
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise ResultError(
            f"{path} cannot be read ({error.strerror}); expected a result of scripts/bench: run it first"
        ) from error
    except msgspec.MsgspecError as error:
        raise ResultError(
            f"{path} is no result of scripts/bench ({error}); expected the JSON file that pytest-benchmark"
            " writes: name one of bench/results/*.json"
        ) from error
    figures = _figures(path, file.benchmarks)
    commit = str(file.commit_info.get("id", "unknown"))[: SHORTEST_COMMIT + 5]
    return Result(
        path,
        measured_at=file.datetime[:16].replace("T", " ") + " UTC" if file.datetime else "unknown",
        commit=commit + ("+" if file.commit_info.get("dirty") else ""),
        cores=file.machine_info.get("cores"),
        machine=_machine(file.machine_info),
        versions=_versions(file.machine_info),
        is_quick=bool(file.machine_info.get("quick")),
        figures=figures,
    )


def newest(folder: Path) -> Path:
    """Raises ResultError."""
    found = sorted(folder.glob("*.json"))
    if not found:
        raise ResultError(f"there is no result in {folder}; run scripts/bench first, or name a file")
    return found[-1]


def number_text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _figures(path: Path, records: Iterable[_Record]) -> tuple[Figure, ...]:
    rounds: dict[tuple[str, str, str], list[_Record]] = {}
    for record in records:
        if not isinstance(record.extra_info.get(COST), int | float):
            raise ResultError(
                f"{path}: {record.name} has no {COST}; expected it in the extra_info of every benchmark:"
                " make the result anew with scripts/bench"
            )
        rounds.setdefault(_figure([record]).key, []).append(record)
    if not rounds:
        raise ResultError(
            f"{path} has no benchmark in it; the run ended before its first: run scripts/bench again"
        )
    return tuple(_figure(of_one) for of_one in rounds.values())


def _figure(rounds: list[_Record]) -> Figure:
    first = rounds[0]
    best = min(rounds, key=lambda record: record.extra_info[COST])
    params = {name: value for name, value in (first.params or {}).items() if name != ROUND}
    infos = [record.extra_info for record in rounds]
    return Figure(
        group=first.group or "other: " + first.name.partition("[")[0],
        test=first.name.partition("[")[0],
        params=params,
        costs_us=tuple(info[COST] for info in infos),
        numbers={
            name: _choose(name)(info[name] for info in infos if name in info) if _choose(name) else value
            for name, value in best.extra_info.items()
            if isinstance(value, int | float)
        },
        notes={name: value for name, value in best.extra_info.items() if isinstance(value, str)},
    )


def _choose(name: str) -> Callable[[Iterable[float]], float] | None:
    """How one number is made of those of all rounds; None: the best round's own."""
    if name in INDEPENDENT:
        return min
    is_elapsed = name.endswith("_s") and not name.endswith("_cpu_s")
    return max if is_elapsed or name in MEMORY or name.startswith(RATE) else None


def _machine(info: Mapping[str, Any]) -> dict[str, str]:
    processor = info.get("cpu_model") or info.get("machine", "unknown")
    cores = info.get("cores") or (info.get("cpu") or {}).get("count", "?")
    return {
        "processor": f"{cores} x {processor}",
        "system": f"{info.get('system', 'unknown')} {info.get('release', '')}".strip(),
    }


def _versions(info: Mapping[str, Any]) -> dict[str, str]:
    named = {"Python": info.get("python_version", "unknown")} | (info.get("versions") or {})
    if "collector" in info:
        named = {"collector": info["collector"]} | named
    return {str(name): str(version) for name, version in named.items()}
