"""Writes docs/performance.md and its plots from a result: ``scripts/bench --report [RESULT.json]``.

Every number is from the result, and what it does not have is "not measured". With ``--table`` it prints the
figures of a result instead and writes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from bench.figures import Figure, Result, ResultError, newest, number_text, read
from bench.targets import ODD, OURS, STREAM_PEERS, TARGETS, WITHOUT_START, curve

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "performance.md"
MB = 1e-6

Cell = Callable[[Figure], str | None]


def measured(name: str, form: str, scale: float = 1.0) -> Cell:
    def cell(figure: Figure) -> str | None:
        value = figure.numbers.get(name)
        return None if value is None else form.format(value * scale)

    return cell


def per_hit(name: str, form: str) -> Cell:
    """Of what has hits: a start and a silent stream count as one."""

    def cell(figure: Figure) -> str | None:
        value, hits = figure.numbers.get(name), figure.numbers.get("hits", 0)
        return None if value is None or hits <= 1 else form.format(value)

    return cell


def written_per_hit(figure: Figure) -> str | None:
    written, hits = (figure.numbers.get(name, 0) for name in ("written_bytes", "hits"))
    return f"{written / hits:,.0f}" if written and hits > 1 else None


WHOLE_COLUMNS: dict[str, Cell] = {
    "hits/s": measured("hits_per_s", "{:,.0f}"),
    "taken by the reader, hits/s": measured("hits_per_s_reader", "{:,.0f}"),
    "us of CPU per hit": per_hit("cpu_us_per_hit", "{:.1f}"),
    "without the start": per_hit("cpu_us_per_hit_steady", "{:.1f}"),
    "reader": per_hit("cpu_us_per_hit_reader", "{:.1f}"),
    "decoders": per_hit("cpu_us_per_hit_decoders", "{:.1f}"),
    "coordinator": per_hit("cpu_us_per_hit_coordinator", "{:.1f}"),
    "% of a core": measured("core_percent", "{:.2f}"),
    "memory, MB": measured("peak_bytes", "{:,.0f}", MB),
    "mapped files, MB": measured("mapped_bytes", "{:,.0f}", MB),
    "written, bytes per hit": written_per_hit,
    "to the first request, s": measured("to_request_s", "{:.2f}"),
    "`--help`, s": measured("help_s", "{:.2f}"),
    "recovered, s": measured("recovered_s", "{:.2f}"),
    "and committed, s": measured("committed_s", "{:.2f}"),
}
LATENCY_COLUMNS: dict[str, Cell] = {
    f"{what} {percentile}, s": measured(f"{what}_{percentile}_s", "{:.3f}")
    for what in ("durable", "visible")
    for percentile in ("p50", "p99")
}


def page(result: Result, drawn: Collection[str] = ()) -> str:
    """With those plots that were drawn."""
    return "\n".join(_page(result, drawn)) + "\n"


def _page(result: Result, drawn: Collection[str]) -> Iterator[str]:
    rounds = max(len(figure.costs_us) for figure in result.figures)
    yield "# Performance"
    yield ""
    yield "Made by `scripts/bench --report` from a run of `scripts/bench`; every number is of that run."
    if result.is_quick:
        yield "**A quick run: few hits, two rounds. It shows that everything works, not how fast it is.**"
    yield ""
    yield from _table(("measured", result.measured_at), _where(result))
    yield ""
    yield "What counts is CPU time per hit over all processes of the collector: it is what a host pays for,"
    yield "and what other work on the machine disturbs least. In a round all contestants take their turn; a"
    yield f"cost is of the best round of at most {rounds}, an elapsed time or memory of the worst."
    for heading, (section, plots) in SECTIONS.items():
        yield from ("", f"## {heading}", "")
        for name, says in plots.items():
            if name in drawn:
                yield from (f"![{says}](performance/{name}.svg)", "")
        yield from list(section(result)) or ["Not measured."]


def _where(result: Result) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    return [("commit", result.commit), *result.machine.items(), ("versions", versions)]


# ---------------------------------------------------------------- sections


def _targets(result: Result) -> Iterator[str]:
    rows = [(at.what, at.asked(), at.measured(result), at.reached(result)) for at in TARGETS]
    yield from _table(("CPU per hit, if nothing else is said", "asked for", "measured", "reached"), rows)
    yield ""
    yield "Socket to Parquet is with two decoders. Costs that are compared with peers leave out all starts."
    yield "Ids and batches count as what they add to the whole cost of a hit."


def _peers(result: Result) -> Iterator[str]:
    for place, (group, figures) in enumerate(_groups(result.of_kind("peer"))):
        if place:
            yield ""
        costs = {name_of(at): (at.cost_us, at.notes) for at in figures}
        if group == STREAM_PEERS and (whole_us := WITHOUT_START(result)) is not None:
            costs[OURS] = whole_us, {"settings": "two decoders, all settings as they come"}
        ours_us, _ = costs.get(OURS, (None, {}))
        rows = [
            (
                f"**{name}**" if name == OURS else name,
                f"{cost_us:.1f}",
                f"{cost_us / ours_us:.2f}" if ours_us else "not measured",
                notes.get("settings", ""),
                notes.get("lacks", ""),
            )
            for name, (cost_us, notes) in sorted(costs.items(), key=lambda item: item[1][0])
        ]
        what = group.partition(": ")[2]
        yield f"{what[0].upper()}{what[1:]}: the same hits for all, starts not counted."
        yield ""
        yield from _table(("", "us of CPU per hit", f"{OURS} = 1", "settings", "lacks"), rows)


def _wholes(result: Result) -> Iterator[str]:
    wholes = result.of_kind("whole")
    yield from _figures_table(wholes, WHOLE_COLUMNS)
    paced = [figure for figure in wholes if any(cell(figure) for cell in LATENCY_COLUMNS.values())]
    if paced:
        yield from (
            "",
            "From the arrival of a hit until it is durable in the journal, and visible in a part:",
            "",
        )
        yield from _figures_table(paced, LATENCY_COLUMNS)
    if wholes:
        yield from (
            "",
            "Memory: anonymous and shared, of all processes. Mapped files can be dropped at any time.",
            "These runs end after one batch; `python -m bench.endless` goes on for as long as one likes.",
        )


def _stages(result: Result) -> Iterator[str]:
    stages = result.of_kind("stage")
    if stages:
        yield "Each by itself, in one process, on hits that need no repair (but for repair itself)."
        yield "Spread: how far the middle round lies above the best."
        yield ""
        rows = [
            (at.title, at.label, f"{at.cost_us:.2f}", "" if at.spread is None else f"{at.spread:.0%}")
            for at in stages
        ]
        yield from _table(("stage", "", "us of CPU per hit", "spread"), rows)


def _growth(result: Result) -> Iterator[str]:
    growth = result.of_kind("growth")
    if growth:
        rows = []
        for _, figures in _groups(growth):
            for first, at in _against_first(figures):
                rows.append((at.title, size_of(at), f"{at.cost_us:.2f}", f"{at.cost_us / first.cost_us:.2f}"))
        yield from _table(("what grows", "to", "us of CPU per hit", "smallest = 1"), rows)


SECTIONS: dict[str, tuple[Callable[[Result], Iterator[str]], dict[str, str]]] = {
    "Targets": (_targets, {}),
    "Peers": (_peers, {"peers": "CPU time per hit of the collector and its peers"}),
    "The collector as a whole": (
        _wholes,
        {"processes": "CPU time per hit by process", "decoders": "Throughput and CPU time against decoders"},
    ),
    "Stages": (
        _stages,
        {
            "stages": "Where each microsecond of a hit goes",
            "stages_plain": "Where it goes without the compiled kernel",
        },
    ),
    "Growth": (_growth, {"growth": "CPU time per hit against size"}),
}
"""Each with its plots."""


def name_of(figure: Figure) -> str:
    return figure.label.replace("_", " ")


def size_of(figure: Figure) -> str:
    """A share of hits is shown in percent."""
    if figure.group == ODD:
        shown = (value if isinstance(value, str) else f"{value:.0%}" for value in figure.params.values())
        return ", ".join(shown)
    return figure.label


def _against_first(figures: Sequence[Figure]) -> Iterator[tuple[Figure, Figure]]:
    """Each with the smallest of its own curve: of the same words, if there are such parameters."""

    def words(figure: Figure) -> list[str]:
        return sorted(value for value in figure.params.values() if isinstance(value, str))

    for _, of_one in groupby(sorted(figures, key=words), key=words):
        ordered = curve(list(of_one))
        for figure in ordered:
            yield ordered[0], figure


def _groups(figures: Iterable[Figure]) -> list[tuple[str, list[Figure]]]:
    """In the order of their first figures."""
    found: dict[str, list[Figure]] = {}
    for figure in figures:
        found.setdefault(figure.group, []).append(figure)
    return list(found.items())


def _figures_table(figures: Sequence[Figure], columns: dict[str, Cell]) -> Iterator[str]:
    """Columns that no figure has are left out."""
    used = {name: cell for name, cell in columns.items() if any(cell(figure) for figure in figures)}
    rows = [
        (f"{at.title} ({at.label})" if at.params else at.title, *(cell(at) or "" for cell in used.values()))
        for at in figures
    ]
    if rows:
        yield from _table(("", *used), rows)


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield _row(heading)
    yield "|---" * len(heading) + "|"
    yield from map(_row, rows)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


# ---------------------------------------------------------------- the command


def table(result: Result) -> str:
    """For a terminal: the figures, short."""
    width = max(len(figure.name) for figure in result.figures)
    lines = [f"{'':<{width}}  us of CPU per hit  spread       hits/s"]
    for figure in result.figures:
        spread = "" if figure.spread is None else f"{figure.spread:.0%}"
        rate = number_text(round(figure.numbers["hits_per_s"])) if "hits_per_s" in figure.numbers else ""
        lines.append(f"{figure.name:<{width}}  {_cost(figure):>17}  {spread:>6}  {rate:>11}".rstrip())
    return "\n".join([*lines, f"{result.path}"])


def _cost(figure: Figure) -> str:
    """What has no hits counts as one."""
    if figure.numbers.get("hits", 0) > 1:
        return f"{figure.cost_us:,.2f}"
    return f"(in all {figure.cost_us / 1e6:.3f} s)"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench --report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("result", type=Path, nargs="?", help="default: the newest in bench/results")
    parser.add_argument("--table", action="store_true", help="print the figures, write nothing")
    parser.add_argument("--output", type=Path, default=PAGE, help="default: docs/performance.md")
    arguments = parser.parse_args()
    try:
        result = read(arguments.result or newest(RESULTS))
    except ResultError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 2
    if arguments.table:
        print(table(result))
        return 0
    # Only here: matplotlib is no part of the everyday environment.
    from bench.plots import draw  # noqa: PLC0415

    drawn = draw(result, arguments.output.parent / "performance")
    arguments.output.write_text(page(result, drawn))
    for path in (arguments.output, *drawn.values()):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
