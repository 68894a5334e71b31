"""Pictures of results as PNG: ops by case, whole steps by model, whole steps against n, m, depth and width."""

import io
import os
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.goals import missed
from bench.ops import BACKENDS, COMPILED, by
from bench.record import place, write_whole

OP_COLOURS = dict(zip((*BACKENDS, COMPILED), ("0.6", "C0", "C2", "C1", "C3"), strict=True))
LIMITS = (0.05, 20)  # of the axis of ratios of ops: a mark beyond them is drawn at the edge
MARKS = {  # of whole steps
    "measured": {"marker": "o", "color": "C0", "markersize": 4.5, "zorder": 3},
    "goal met": {"marker": "o", "color": "C2", "markersize": 4.5, "zorder": 3},
    "goal missed": {"marker": "o", "color": "C3", "markersize": 4.5, "zorder": 3},
    "goal": {"marker": "d", "color": "0.2", "markersize": 6, "zorder": 4, "markerfacecolor": "none"},
    "FLOP floor": {"marker": "|", "color": "black", "markersize": 9, "zorder": 2},
}
FAR = 5.0  # of whole steps: a ratio beyond it is written at the edge
NUMBER = {"fontsize": 6.5, "va": "center", "textcoords": "offset points"}
STEP_COLOURS = {
    "plain": "0.3",
    "Reweighter": "C0",
    "update=backward": "C2",
    "params=last": "C4",
    "double_backward": "C3",
}


def draw(result: dict, path: str | os.PathLike) -> None:
    """The picture of a result of any benchmark that has one."""
    figure, image = {"ops": _ops, "end_to_end": _steps, "scaling": _scaling}[result["bench"]](result), io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write_whole(path, image.getvalue())


def _lines(axis: Axes, title: str, names: list[str], size: int, loc: str) -> None:
    """A labelled line for each name, from top to bottom."""
    axis.axvline(1, color="grey", linewidth=0.8, zorder=0)
    axis.set_yticks(range(len(names)), names, fontsize=size)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.tick_params(axis="x", labelsize=7)
    axis.grid(axis="x", linewidth=0.3)
    axis.set_title(title, fontsize=9, pad=3, loc=loc)


def _steps(result: dict) -> Figure:
    """Ratio to a plain step: a row of panels for each run, a panel for each model, a line for each variant; FLOP floor
    and goal marked, no dot where there is no number."""
    runs = [run for run in result["runs"] if run["rows"]]
    models = list(dict.fromkeys(row["model"] for run in runs for row in run["rows"]))
    methods = [list(dict.fromkeys(row["method"] for row in run["rows"] if row["method"] != "plain")) for run in runs]
    heights = [len(each) + 3.5 for each in methods]
    figure = Figure(figsize=(2.2 + 2.4 * len(models), 1 + 0.22 * sum(heights)), layout="constrained")
    parts = figure.subfigures(len(runs), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, run, names in zip(parts, runs, methods, strict=True):
        axes = part.subplots(1, len(models), squeeze=False, sharey="row")[0]
        for axis, model in zip(axes, models, strict=True):
            rows = {row["method"]: row for row in run["rows"] if row["model"] == model}
            for at, name in enumerate(names):
                _step(axis, at, rows.get(name))
            axis.set_xlim(0.6, FAR + 0.1)
            axis.set_xticks(range(1, int(FAR) + 1))
            _lines(axis, model, names, size=8, loc="center")
            axis.tick_params(axis="x", labelbottom=True)
        without = "" if run.get("extension", "on") == "on" else ", without the compiled extension"
        part.suptitle(f"time ÷ plain step: {place(run['machine'])}, malloc {run['malloc']}{without}", size=10)
    marks = [Line2D([], [], linestyle="", **mark) for mark in MARKS.values()]
    figure.legend(marks, MARKS, ncols=len(MARKS), fontsize=8, loc="outside lower center")
    return figure


def _step(axis: Axes, at: int, row: dict | None) -> None:
    """The figures of one variant of one model, on its line."""
    if row is None or row["ratio"] is None:
        axis.annotate("no number", (1.06, at), (0, 0), color="0.5", **NUMBER)
        return
    goal, floor, ratio, quartiles = row.get("goal"), row["floor"], row["ratio"], row["quartiles"]
    mark = MARKS["measured" if goal is None else "goal missed" if missed(ratio, goal) else "goal met"]
    if floor and floor < FAR:
        axis.plot(floor, at, **MARKS["FLOP floor"])
    if ratio > FAR:
        axis.plot(FAR, at, **mark | {"marker": ">"})
        axis.annotate(f"{ratio:.0f}", (FAR, at), (-6, 0), ha="right", **NUMBER)
        return
    axis.hlines(at, *quartiles, color=mark["color"], linewidth=2, alpha=0.5)
    axis.plot(ratio, at, **mark)
    if goal:
        axis.plot(goal, at, **MARKS["goal"])
    right = max(x for x in (ratio, quartiles[1], goal, floor) if x)
    x, away, ha = (right, 6, "left") if right < 0.9 * FAR else (quartiles[0], -6, "right")
    axis.annotate(f"{ratio:.2f}", (x, at), (away, 0), ha=ha, **NUMBER)


def _ops(result: dict) -> Figure:
    """Ratio to the fastest eager form, a line for each case, quartiles as bars across the marks; ops in two columns."""
    rows = [row for row in result["rows"] if row["to_eager"] and by(row["way"]) in OP_COLOURS]
    several = len({row["dtype"] for row in rows}) > 1
    panels: dict[str, list[dict]] = {}
    for row in rows:
        panels.setdefault(row["op"] + (f", {row['dtype']}" if several else ""), []).append(row)
    heights = {title: len({row["case"] for row in found}) + 2 for title, found in panels.items()}
    columns: tuple[list[str], list[str]] = [], []
    for title in heights:  # in order, the second column from where the first has half of the height
        above = sum(heights[other] for other in (*columns[0], *columns[1]))
        columns[2 * above >= sum(heights.values())].append(title)
    tall = max(sum(heights[title] for title in column) for column in columns)
    figure = Figure(figsize=(13, 1.5 + 0.19 * tall), layout="constrained")
    labels = {}
    for part, column in zip(figure.subfigures(1, 2), filter(None, columns), strict=False):
        each = {"height_ratios": [heights[title] for title in column]}
        axes = part.subplots(len(column), 1, squeeze=False, sharex=True, gridspec_kw=each)[:, 0]
        for axis, title in zip(axes, column, strict=True):
            _ratios(axis, title, panels[title])
            labels |= {text: mark for mark, text in zip(*axis.get_legend_handles_labels(), strict=True)}
        axes[-1].set_xlabel("time ÷ fastest eager form")
    figure.suptitle(f"{place(result['machine'])}; left of 1 is faster", size=10)
    figure.legend(labels.values(), labels.keys(), ncols=8, fontsize=8, loc="outside lower center")
    return figure


def _ratios(axis: Axes, title: str, rows: list[dict]) -> None:
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
    axis.set(xscale="log", xlim=(0.95 * LIMITS[0], 1.05 * LIMITS[1]))
    axis.set_xticks(ticks := [0.1, 0.25, 0.5, 1, 2, 4, 10], map(str, ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    _lines(axis, title, cases, size=7, loc="left")


def _scaling(result: dict) -> Figure:
    """Time and memory, both axes logarithmic; at the end of each line its ratio to the plain step."""
    rows = [row for row in result["rows"] if row["ratio"]]
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    figure = Figure(figsize=(1 + 3 * len(axes), 6.2), layout="constrained")
    every = figure.subplots(2, len(axes), squeeze=False, sharex="col", sharey="row")
    ends = {}
    for (time, memory), axis in zip(every.T, axes, strict=True):
        here = [row for row in rows if row["axis"] == axis]
        ends[time] = _curves(time, here, lambda row: row["seconds"]["median"] * 1e3, "ratio")
        ends[memory] = _curves(memory, here, lambda row: row["peak_bytes"] / 1e6, "peak_ratio")
        values = sorted({row["value"] for row in here})
        memory.set_xticks(values, map(str, values))
        memory.minorticks_off()
        memory.set_xlabel(axis)
        time.set_title(", ".join(f"{key} {value}" for key, value in result["own"].items() if key != axis), fontsize=9)
    every[0, 0].set_ylabel("time of a step, ms")
    every[1, 0].set_ylabel("peak memory of a step, MB")
    figure.suptitle(f"{result['family']}: {place(result['machine'])}; numbers: ratio to the plain step", size=10)
    figure.legend(*every[0, 0].get_legend_handles_labels(), ncols=8, fontsize=8, loc="outside lower center")
    figure.draw_without_rendering()  # now every panel has its place and limits
    for panel, found in ends.items():
        lowest = -float("inf")
        for height, x, ratio, colour in sorted(found):  # in points apart where lines end close to each other
            at = panel.transData.transform((x, height))[1] * 72 / figure.dpi
            lowest = max(at, lowest + 8)
            panel.annotate(f"{ratio:.2f}", (x, height), (5, lowest - at), color=colour, **NUMBER | {"fontsize": 7})
    return figure


def _curves(panel: Axes, rows: list[dict], figure: Callable[[dict], float], ratio: str) -> list[tuple]:
    """A line for each variant; the end of each but plain: height, place, ratio, colour."""
    ends = []
    for name, colour in STEP_COLOURS.items():
        found = sorted((row for row in rows if row["method"] == name), key=lambda row: row["value"])
        if not found:
            continue
        values, heights = [row["value"] for row in found], [*map(figure, found)]
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
