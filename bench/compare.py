"""Which figures got slower or faster between two results: ``scripts/bench --compare A B``.

Judged is ``cpu_us_per_hit``, lower is better: the best round of A against the best round of B. B is slower,
or faster, if their ratio lies outside the noise: 5 %, or twice the spread of the noisier one if that is
more, where the spread of a figure is how far its middle round lies above its best. With one round nothing is
known of the noise, so nothing is judged. Prints first what else differs between the two runs. Exit code 1:
something is slower; 2: a file is no result.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from bench.figures import Figure, Result, ResultError, read

LEAST_NOISE = 0.05
SPREADS = 2


class Verdict(Enum):
    SLOWER = "slower"
    FASTER = "faster"
    SAME = "within noise"
    UNKNOWN = "one round only"


@dataclass(frozen=True, slots=True)
class Change:
    before: Figure
    after: Figure

    @property
    def ratio(self) -> float:
        """Over 1: slower."""
        return self.after.cost_us / self.before.cost_us if self.before.cost_us else 1.0

    @property
    def noise(self) -> float | None:
        spreads = [self.before.spread, self.after.spread]
        if None in spreads:
            return None
        return max(LEAST_NOISE, *(SPREADS * spread for spread in spreads if spread is not None))

    @property
    def verdict(self) -> Verdict:
        if self.noise is None:
            return Verdict.UNKNOWN
        if self.ratio > 1 + self.noise:
            return Verdict.SLOWER
        return Verdict.FASTER if self.ratio < 1 / (1 + self.noise) else Verdict.SAME


def changes(before: Result, after: Result) -> list[Change]:
    """Of the figures that both have, those that changed most first."""
    others = {figure.key: figure for figure in after.figures}
    found = [Change(figure, others[figure.key]) for figure in before.figures if figure.key in others]
    return sorted(found, key=lambda change: -max(change.ratio, 1 / (change.ratio or 1)))


def only_in(one: Result, other: Result) -> list[Figure]:
    known = {figure.key for figure in other.figures}
    return [figure for figure in one.figures if figure.key not in known]


def differences(before: Result, after: Result) -> list[str]:
    """What else than the code may be the reason: machine, versions, size of the run."""
    found = []
    for ours, theirs in ((before.machine, after.machine), (before.versions, after.versions)):
        for name in sorted(ours.keys() | theirs.keys()):
            pair = ours.get(name, "none"), theirs.get(name, "none")
            if pair[0] != pair[1]:
                found.append(f"{name}: {pair[0]} | {pair[1]}")
    if before.is_quick != after.is_quick:
        found.append("size: " + " | ".join("quick" if run.is_quick else "full" for run in (before, after)))
    return found


def text(before: Result, after: Result) -> str:
    return "\n".join(_lines(before, after))


def _lines(before: Result, after: Result) -> Iterator[str]:
    for name, run in (("A", before), ("B", after)):
        yield f"{name}  {run.path}, {run.measured_at}, commit {run.commit}"
    for line in differences(before, after):
        yield f"A and B differ in {line}"
    yield ""
    found = changes(before, after)
    width = max((len(change.before.name) for change in found), default=0)
    for change in found:
        if change.verdict is not Verdict.SAME:
            yield _line(change, width)
    same = sum(change.verdict is Verdict.SAME for change in found)
    yield f"{same} of {len(found)} figures within noise"
    for name, figures in (("A", only_in(before, after)), ("B", only_in(after, before))):
        for figure in figures:
            yield f"only in {name}: {figure.name}"


def _line(change: Change, width: int) -> str:
    noise = "unknown" if change.noise is None else f"{change.noise:.0%}"
    return (
        f"{change.verdict.value:<14}  {change.before.name:<{width}}  {change.before.cost_us:8.2f} ->"
        f" {change.after.cost_us:8.2f} us per hit  x {change.ratio:.2f} (noise {noise})"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench --compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("before", type=Path, metavar="A")
    parser.add_argument("after", type=Path, metavar="B")
    arguments = parser.parse_args()
    try:
        before, after = read(arguments.before), read(arguments.after)
    except ResultError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 2
    print(text(before, after))
    return int(any(change.verdict is Verdict.SLOWER for change in changes(before, after)))


if __name__ == "__main__":
    sys.exit(main())
