"""The plots of docs/performance.md as SVG, the same bytes for the same result. All of matplotlib is here.

``python -m bench.plots RESULT.json FOLDER [--format png]`` draws them by themselves and prints their paths.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from bench.figures import Figure, Result, read
from bench.report import name_of
from bench.targets import BATCHES, IDS, KERNEL, ODD, OURS, OURS_PLAIN, PATHS, PEERS, PLAIN, SOCKET, curve

# Okabe and Ito's: told apart with every kind of colour vision, on white.
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8A8A8A"
PROCESSES = {"reader": BLUE, "decoders": ORANGE, "coordinator": GREEN}
LINES = ((BLUE, "o"), (VERMILION, "s"), (GREEN, "^"))
OF_READER = {"inflate", "framing", "journal write"}
OF_COORDINATOR = {"resend index", "messages", "commit"}

COST = "microseconds of CPU per hit"
WIDTH_IN = 8.5
ROW_IN = 0.32
MARGIN_IN = 1.2
PAD_IN = 0.15

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "livestream-collector",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.8,
}

Draw = Callable[[Result], Canvas | None]


def draw(result: Result, folder: Path, form: str = "svg") -> dict[str, Path]:
    """Gives the paths by name of those that the result has figures for; others are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    with mpl.rc_context(STYLE):
        for name, plot in PLOTS.items():
            path = folder / f"{name}.{form}"
            path.unlink(missing_ok=True)
            if (canvas := plot(result)) is not None:
                no_dates = {"Date": None, "Creator": None} if form == "svg" else None
                canvas.savefig(path, format=form, metadata=no_dates)
                drawn[name] = path
    return drawn


def _canvas(height_in: float, panels: int = 1) -> tuple[Canvas, Sequence[Axes]]:
    canvas = Canvas(figsize=(WIDTH_IN, height_in), layout="constrained")
    # Room for the letters of another font than the one that the layout was made with.
    canvas.get_layout_engine().set(w_pad=PAD_IN, h_pad=PAD_IN)
    return canvas, [canvas.add_subplot(1, panels, panel) for panel in range(1, panels + 1)]


def _rows(names: Sequence[str]) -> tuple[Canvas, Axes]:
    """Horizontal bars, the first on top."""
    canvas, (axes,) = _canvas(MARGIN_IN + ROW_IN * len(names))
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(COST)
    axes.margins(x=0.12)
    return canvas, axes


def _legend(axes: Axes, colours: dict[str, str]) -> None:
    for name, colour in colours.items():
        axes.barh([0], [0], color=colour, label=name)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(colours), borderaxespad=0.2)


# ---------------------------------------------------------------- bars


def peers(result: Result) -> Canvas | None:
    figures = sorted(result.of_group(PEERS), key=lambda figure: figure.cost_us)
    if not figures:
        return None
    canvas, axes = _rows([name_of(figure) for figure in figures])
    colours = [ORANGE if figure.label in (OURS, OURS_PLAIN) else GREY for figure in figures]
    costs = [figure.cost_us for figure in figures]
    bars = axes.barh(range(len(figures)), costs, color=colours, height=0.7)
    axes.bar_label(bars, fmt="%.1f", padding=4)
    axes.set_title("From a gzip file to Parquet")
    return canvas


def stages(result: Result, twin: str = KERNEL) -> Canvas | None:
    """Each begins where the one before it ended, so the last ends at their sum."""
    found = [(names, figure) for names in PATHS[twin] if (figure := _stage(result, *names)) is not None]
    if not found:
        return None
    canvas, axes = _rows([", ".join(names) for names, _ in found])
    end_us = 0.0
    for row, ((stage, *_), figure) in enumerate(found):
        colour = PROCESSES[_process(stage)]
        axes.barh(row, figure.cost_us, left=end_us, color=colour, height=0.7)
        end_us += figure.cost_us
        axes.annotate(f"{figure.cost_us:.2f}", (end_us, row), (4, 0), textcoords="offset points", va="center")
    _legend(axes, PROCESSES)
    return canvas


def _stage(result: Result, stage: str, *values: str) -> Figure | None:
    return result.find(f"stage: {stage}", *values)


def _process(stage: str) -> str:
    if stage in OF_READER:
        return "reader"
    return "coordinator" if stage in OF_COORDINATOR else "decoders"


def processes(result: Result) -> Canvas | None:
    wholes = [
        figure
        for figure in result.of_kind("whole")
        if figure.numbers.get("hits", 0) > 1 and "cpu_us_per_hit_reader" in figure.numbers
    ]
    if not wholes:
        return None
    canvas, axes = _rows([_whole_name(figure) for figure in wholes])
    ends_us = [0.0] * len(wholes)
    for process, colour in PROCESSES.items():
        costs = [figure.numbers.get(f"cpu_us_per_hit_{process}", 0.0) for figure in wholes]
        axes.barh(range(len(wholes)), costs, left=ends_us, color=colour, height=0.7)
        ends_us = [end_us + cost for end_us, cost in zip(ends_us, costs, strict=True)]
    for row, figure in enumerate(wholes):
        label = f"{figure.cost_us:.1f}"
        axes.annotate(label, (ends_us[row], row), (4, 0), textcoords="offset points", va="center")
    _legend(axes, PROCESSES)
    axes.set_xlabel(f"{COST}, start and exit included")
    return canvas


def _whole_name(figure: Figure) -> str:
    if figure.title.startswith("steady"):
        return figure.title
    return f"{figure.title}, {figure.label}" if figure.params else figure.title


def decoders(result: Result) -> Canvas | None:
    figures = curve([at for at in result.of_group(SOCKET) if at.params.get("twin") == KERNEL])
    if not figures:
        return None
    canvas, (left, right) = _canvas(3.2, panels=2)
    names = [str(figure.params["decoders"]) for figure in figures]
    rates = [figure.numbers.get("hits_per_s", 0.0) for figure in figures]
    left.bar_label(left.bar(names, rates, color=BLUE, width=0.5), fmt="{:,.0f}", padding=3)
    left.set_title("hits per second")
    costs = [figure.numbers.get("cpu_us_per_hit_steady", figure.cost_us) for figure in figures]
    right.bar_label(right.bar(names, costs, color=ORANGE, width=0.5), fmt="%.1f", padding=3)
    right.set_title(f"{COST}, without the start")
    for axes in (left, right):
        axes.set_xlabel("decoders")
        axes.grid(visible=False, axis="x")
        axes.margins(y=0.15)
    left.yaxis.set_major_formatter("{x:,.0f}")
    return canvas


# ---------------------------------------------------------------- curves


def growth(result: Result) -> Canvas | None:
    panels = [
        (title, groups)
        for title, groups in (
            ("ids in the resend index", IDS),
            ("committed batches", BATCHES),
            ("hits that need repair", (ODD,)),
        )
        if any(result.of_group(group) for group in groups)
    ]
    if not panels:
        return None
    canvas, all_axes = _canvas(3.4, panels=len(panels))
    for axes, (title, groups) in zip(all_axes, panels, strict=True):
        _curves(axes, [one for group in groups for one in _by_twin(result.of_group(group))])
        axes.set_xlabel(title)
        axes.set_ylim(bottom=0)
        if groups == (ODD,):
            axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        else:
            axes.set_xscale("log")
    all_axes[0].set_ylabel(COST)
    return canvas


def _by_twin(figures: Sequence[Figure]) -> list[list[Figure]]:
    twins = sorted({str(figure.params.get("twin", "")) for figure in figures})
    return [curve([at for at in figures if at.params.get("twin", "") == twin]) for twin in twins]


def _curves(axes: Axes, curves: Iterable[Sequence[Figure]]) -> None:
    shown = [figures for figures in curves if figures]
    for figures, (colour, marker) in zip(shown, LINES, strict=False):
        sizes = [next(size for size in at.params.values() if isinstance(size, int | float)) for at in figures]
        costs = [figure.cost_us for figure in figures]
        label = figures[0].params.get("twin") or figures[0].title.rpartition(", ")[2]
        axes.plot(sizes, costs, color=colour, marker=marker, label=label)
    if len(shown) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


PLOTS: dict[str, Draw] = {
    "peers": peers,
    "processes": processes,
    "decoders": decoders,
    "stages": stages,
    "stages_plain": functools.partial(stages, twin=PLAIN),
    "growth": growth,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--format", choices=["svg", "png"], default="svg")
    arguments = parser.parse_args()
    for path in draw(read(arguments.result), arguments.folder, arguments.format).values():
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
