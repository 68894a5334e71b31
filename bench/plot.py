"""Pictures of results as PNG: ops by case, whole steps by model, whole steps against n, m, depth and width."""

from __future__ import annotations

import io
import os

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.goals import missed
from bench.ops import BACKENDS, COMPILED, by
from bench.record import place, write_whole

OP_COLOURS = dict(zip((*BACKENDS, COMPILED), ("0.6", "C0", "C2", "C1", "C3"), strict=True))
LIMITS = (0.05, 20)  # of the axis of ratios of ops: a mark beyond them is drawn at the edge
MET, MISSED, WITHOUT_GOAL, FLOOR = "C2", "C3", "C0", "black"
FAR = 5.0  # of whole steps: a ratio beyond it is written at the edge
NUMBER = {"fontsize": 6.5, "va": "center", "textcoords": "offset points"}
STEP_COLOURS = {
    "plain": "0.3",
    "Reweighter": "C0",
    "update=backward": "C2",
    "params=last": "C4",
    "double_backward": "C3",
}


def write(figure: Figure, path: str | os.PathLike) -> None:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write_whole(path, image.getvalue())


def _lines(axis, title: str, names: list[str], size: int, loc: str) -> None:
    """A labelled line for each name, from top to bottom."""
    axis.set_yticks(range(len(names)), names, fontsize=size)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.tick_params(axis="x", labelsize=7)
    axis.grid(axis="x", linewidth=0.3)
    axis.set_title(title, fontsize=9, pad=3, loc=loc)


def plot_steps(runs: list[dict], path: str | os.PathLike) -> None:
    """Ratio to a plain step: a row of panels for each run, a panel for each model, a line for each variant; FLOP floor
    and goal marked, no dot where there is no number."""
    runs = [run for run in runs if run["rows"]]
    models = list(dict.fromkeys(row["model"] for run in runs for row in run["rows"]))
    methods = [list(dict.fromkeys(row["method"] for row in run["rows"] if row["method"] != "plain")) for run in runs]
    heights = [len(each) + 3.5 for each in methods]
    size = 2.2 + 2.4 * len(models), 1 + 0.22 * sum(heights)
    figure = Figure(figsize=size, layout="constrained")
    parts = figure.subfigures(len(runs), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, run, names in zip(parts, runs, methods, strict=True):
        axes = part.subplots(1, len(models), squeeze=False, sharey="row")[0]
        for axis, model in zip(axes, models, strict=True):
            _steps(axis, model, names, {row["method"]: row for row in run["rows"] if row["model"] == model})
        without = "" if run.get("extension", "on") == "on" else ", without the compiled extension"
        part.suptitle(f"time ÷ plain step: {place(run['machine'])}, malloc {run['malloc']}{without}", size=10)
    dots = {"measured": WITHOUT_GOAL, "goal met": MET, "goal missed": MISSED}
    marks = [Line2D([], [], marker="o", linestyle="", color=colour) for colour in dots.values()]
    marks.append(Line2D([], [], marker="d", linestyle="", markerfacecolor="none", color="0.2"))
    marks.append(Line2D([], [], marker="|", linestyle="", markersize=9, color=FLOOR))
    names = [*dots, "goal", "FLOP floor"]
    figure.legend(marks, names, ncols=len(names), fontsize=8, loc="outside lower center")
    write(figure, path)


def _steps(axis, title: str, methods: list[str], rows: dict[str, dict]) -> None:
    axis.axvline(1, color="grey", linewidth=0.8, zorder=0)
    for at, method in enumerate(methods):
        row = rows.get(method)
        if row is None or row["ratio"] is None:
            axis.annotate("no number", (1.06, at), (0, 0), color="0.5", **NUMBER)
            continue
        goal, ratio = row.get("goal"), row["ratio"]
        colour = WITHOUT_GOAL if goal is None else MISSED if missed(ratio, goal) else MET
        if row["floor"] and row["floor"] < FAR:
            axis.plot(row["floor"], at, "|", color=FLOOR, markersize=9, zorder=2)
        if ratio > FAR:
            axis.plot(FAR, at, ">", color=colour, markersize=5, zorder=3)
            axis.annotate(f"{ratio:.0f}", (FAR, at), (-6, 0), ha="right", **NUMBER)
            continue
        axis.hlines(at, *row["quartiles"], color=colour, linewidth=2, alpha=0.5)
        axis.plot(ratio, at, "o", color=colour, markersize=4.5, zorder=3)
        if goal:
            axis.plot(goal, at, "d", markerfacecolor="none", color="0.2", markersize=6, zorder=4)
        right = max(x for x in (ratio, row["quartiles"][1], goal, row["floor"]) if x)
        x, away, ha = (right, 6, "left") if right < 0.9 * FAR else (row["quartiles"][0], -6, "right")
        axis.annotate(f"{ratio:.2f}", (x, at), (away, 0), ha=ha, **NUMBER)
    axis.set_xlim(0.6, FAR + 0.1)
    axis.set_xticks(range(1, int(FAR) + 1))
    _lines(axis, title, methods, size=8, loc="center")
    axis.tick_params(axis="x", labelbottom=True)


def plot_ops(result: dict, path: str | os.PathLike) -> None:
    """Ratio to the fastest eager form, a line for each case, quartiles as bars across the marks; ops in two columns."""
    rows = [row for row in result["rows"] if row["to_eager"] and by(row["way"]) in OP_COLOURS]
    dtypes = {row["dtype"] for row in rows}
    panels: dict[str, list[dict]] = {}
    for row in rows:
        panels.setdefault(row["op"] + (f", {row['dtype']}" if len(dtypes) > 1 else ""), []).append(row)
    heights = {title: len({row["case"] for row in found}) + 2 for title, found in panels.items()}
    left, right = _halves(heights)
    tall = max(sum(heights[title] for title in half) for half in (left, right))
    figure = Figure(figsize=(13, 1.5 + 0.19 * tall), layout="constrained")
    labels = {}
    for half, column in zip(figure.subfigures(1, 2), (left, right), strict=True):
        if not column:
            continue
        each = {"height_ratios": [heights[title] for title in column]}
        axes = half.subplots(len(column), 1, squeeze=False, sharex=True, gridspec_kw=each)
        for axis, title in zip(axes[:, 0], column, strict=True):
            _ratios(axis, title, panels[title])
            labels |= {text: mark for mark, text in zip(*axis.get_legend_handles_labels(), strict=True)}
        axes[-1, 0].set_xlabel("time ÷ fastest eager form")
    figure.suptitle(f"{place(result['machine'])}; left of 1 is faster", size=10)
    figure.legend(labels.values(), labels.keys(), ncols=8, fontsize=8, loc="outside lower center")
    write(figure, path)


def _halves(heights: dict[str, int]) -> tuple[list[str], list[str]]:
    """The titles in order, cut where both columns are about as tall."""
    titles, total, tall = list(heights), sum(heights.values()), 0
    for index, title in enumerate(titles):
        tall += heights[title]
        if 2 * tall >= total:
            return titles[: index + 1], titles[index + 1 :]
    return titles, []


def _ratios(axis, title: str, rows: list[dict]) -> None:
    cases = list(dict.fromkeys(row["case"] for row in rows))
    for name, colour in OP_COLOURS.items():
        found = [row for row in rows if by(row["way"]) == name]
        if not found:
            continue
        at = [cases.index(row["case"]) for row in found]
        ratios = [min(max(row["to_eager"]["median"], LIMITS[0]), LIMITS[1]) for row in found]
        low, high = zip(*(row["to_eager"]["quartiles"] for row in found), strict=True)
        axis.hlines(at, low, high, color=colour, linewidth=1, alpha=0.6)
        axis.scatter(ratios, at, s=18, color=colour, label=name, zorder=3, marker="|" if name == "reference" else "o")
    axis.axvline(1, color="black", linewidth=0.8, zorder=0)
    axis.set(xscale="log", xlim=(0.95 * LIMITS[0], 1.05 * LIMITS[1]))
    axis.set_xticks([0.1, 0.25, 0.5, 1, 2, 4, 10], ["0.1", "0.25", "0.5", "1", "2", "4", "10"])
    axis.xaxis.set_minor_locator(NullLocator())
    _lines(axis, title, cases, size=7, loc="left")


def plot_scaling(result: dict, path: str | os.PathLike) -> None:
    """Both axes logarithmic; at the end of each line its ratio to the plain step."""
    rows = [row for row in result["rows"] if row["ratio"]]
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    figure = Figure(figsize=(1 + 3 * len(axes), 6.2), layout="constrained")
    every = figure.subplots(2, len(axes), squeeze=False, sharex="col", sharey="row")
    ends = {}
    for column, axis in enumerate(axes):
        here = [row for row in rows if row["axis"] == axis]
        for panel, key, scale in ((every[0, column], "seconds", 1e3), (every[1, column], "peak_bytes", 1e-6)):
            ends[panel] = sorted(_curves(panel, here, key, scale))
        every[1, column].set_xlabel(axis)
        values = sorted({row["value"] for row in here})
        every[1, column].set_xticks(values, map(str, values))
        every[1, column].minorticks_off()
        rest = ", ".join(f"{key} {value}" for key, value in result["own"].items() if key != axis)
        every[0, column].set_title(rest, fontsize=9)
    every[0, 0].set_ylabel("time of a step, ms")
    every[1, 0].set_ylabel("peak memory of a step, MB")
    figure.suptitle(f"{result['family']}: {place(result['machine'])}; numbers: ratio to the plain step", size=10)
    figure.legend(*every[0, 0].get_legend_handles_labels(), ncols=8, fontsize=8, loc="outside lower center")
    figure.draw_without_rendering()  # now every panel has its place and limits
    for panel, lines in ends.items():
        _number(panel, lines)
    write(figure, path)


def _curves(panel, rows: list[dict], key: str, scale: float) -> list[tuple]:
    """Draws them; the end of each: height, place, ratio, colour."""
    ratio = "ratio" if key == "seconds" else "peak_ratio"
    ends = []
    for name, colour in STEP_COLOURS.items():
        found = sorted((row for row in rows if row["method"] == name), key=lambda row: row["value"])
        if not found:
            continue
        heights = [scale * (row[key]["median"] if key == "seconds" else row[key]) for row in found]
        values = [row["value"] for row in found]
        panel.plot(values, heights, "o-", color=colour, label=name, markersize=3, linewidth=1.2)
        if name != "plain":
            ends.append((heights[-1], values[-1], found[-1][ratio], colour))
    panel.set(xscale="log", yscale="log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.grid(linewidth=0.3)
    panel.tick_params(labelsize=7)
    panel.margins(x=0.16)
    return ends


def _number(panel, ends: list[tuple]) -> None:
    """Each line's ratio at its end, in points apart where lines end close to each other."""
    lowest = -float("inf")
    for height, x, number, colour in ends:
        at = panel.transData.transform((x, height))[1] * 72 / panel.figure.dpi
        lowest = max(at, lowest + 8)
        panel.annotate(f"{number:.2f}", (x, height), (5, lowest - at), color=colour, **NUMBER | {"fontsize": 7})
