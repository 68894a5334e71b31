"""Pictures of results: whole steps by model and way, ops by case and way. Written as PNG, whole or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path

from bench.goals import missed
from bench.ops import BACKENDS, COMPILED, by
from bench.record import write_whole

COLOURS = dict(zip((*BACKENDS, COMPILED), ("0.6", "C0", "C2", "C1", "C3"), strict=True))  # way -> colour
LIMITS = (0.05, 20)  # of the axis of ratios: a mark beyond them is drawn at the edge


def pyplot():
    """matplotlib, without a display."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def plot_steps(runs: list[dict], path: str | os.PathLike) -> None:
    """Ratio to a plain step: a row a run, a panel a model, a line a way; FLOP floor and goal marked, no dot where there
    is no number."""
    plot = pyplot()
    runs = [run for run in runs if run["rows"]]
    models = list(dict.fromkeys(row["model"] for run in runs for row in run["rows"]))
    ways = [[way for way in dict.fromkeys(row["method"] for row in run["rows"]) if way != "plain"] for run in runs]
    heights = [len(each) + 3.5 for each in ways]
    size = 2.2 + 2.4 * len(models), 1 + 0.22 * sum(heights)
    figure = plot.figure(figsize=size, layout="constrained")
    parts = figure.subfigures(len(runs), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, run, names in zip(parts, runs, ways, strict=True):
        axes = part.subplots(1, len(models), squeeze=False, sharey="row")[0]
        for axis, model in zip(axes, models, strict=True):
            _steps(axis, model, names, {row["method"]: row for row in run["rows"] if row["model"] == model})
        machine = run["machine"]
        without = "" if run.get("extension", "on") == "on" else ", without the compiled extension"
        where = f"{machine.get('gpu', machine['cpu'])}, {machine['threads']} threads, malloc {run['malloc']}{without}"
        part.suptitle(f"time ÷ plain step: {where}", size=10)
    marks = {text: mark for mark, text in zip(*_legend(), strict=True)}
    figure.legend(marks.values(), marks.keys(), ncols=len(marks), fontsize=8, loc="outside lower center")
    write(figure, path)


MET, MISSED, WITHOUT_GOAL, FLOOR = "C2", "C3", "C0", "black"
FAR = 5.0  # a ratio beyond is written at the edge
NUMBER = {"fontsize": 6.5, "va": "center"}


def _legend() -> tuple[list, list[str]]:
    from matplotlib.lines import Line2D

    dots = {"measured": WITHOUT_GOAL, "goal met": MET, "goal missed": MISSED}
    marks = [Line2D([], [], marker="o", linestyle="", color=colour) for colour in dots.values()]
    marks.append(Line2D([], [], marker="d", linestyle="", markerfacecolor="none", color="0.2"))
    marks.append(Line2D([], [], marker="|", linestyle="", markersize=9, color=FLOOR))
    return marks, [*dots, "goal", "FLOP floor"]


def _steps(axis, title: str, ways: list[str], rows: dict[str, dict]) -> None:
    axis.axvline(1, color="grey", linewidth=0.8, zorder=0)
    for at, way in enumerate(ways):
        row = rows.get(way)
        if row is None or row["ratio"] is None:
            axis.annotate("no number", (1.06, at), color="0.5", **NUMBER)
            continue
        goal, ratio = row.get("goal"), row["ratio"]
        colour = WITHOUT_GOAL if goal is None else MISSED if missed(ratio, goal) else MET
        if row["floor"] and row["floor"] < FAR:
            axis.plot(row["floor"], at, "|", color=FLOOR, markersize=9, zorder=2)
        if ratio > FAR:
            axis.plot(FAR, at, ">", color=colour, markersize=5, zorder=3)
            axis.annotate(f"{ratio:.0f}", (FAR, at), (-6, 0), textcoords="offset points", ha="right", **NUMBER)
            continue
        axis.hlines(at, *row["quartiles"], color=colour, linewidth=2, alpha=0.5)
        axis.plot(ratio, at, "o", color=colour, markersize=4.5, zorder=3)
        if goal:
            axis.plot(goal, at, "d", markerfacecolor="none", color="0.2", markersize=6, zorder=4)
        right = max(x for x in (ratio, row["quartiles"][1], goal, row["floor"]) if x)
        x, away, ha = (right, 6, "left") if right < 0.9 * FAR else (row["quartiles"][0], -6, "right")
        axis.annotate(f"{ratio:.2f}", (x, at), (away, 0), textcoords="offset points", ha=ha, **NUMBER)
    axis.set_xlim(0.6, FAR + 0.1)
    axis.set_xticks(range(1, int(FAR) + 1))
    axis.set_yticks(range(len(ways)), ways, fontsize=8)
    axis.set_ylim(len(ways) - 0.4, -0.6)
    axis.tick_params(axis="x", labelsize=7, labelbottom=True)
    axis.grid(axis="x", linewidth=0.3)
    axis.set_title(title, fontsize=9, pad=3)


def plot_ops(result: dict, path: str | os.PathLike) -> None:
    """Ratio to the fastest eager form, a line a case, its quartiles as a bar across each mark; ops in two columns."""
    plot = pyplot()
    rows = [row for row in result["rows"] if row["to_eager"] and by(row["way"]) in COLOURS]
    dtypes = {row["dtype"] for row in rows}
    panels: dict[str, list[dict]] = {}
    for row in rows:
        panels.setdefault(row["op"] + (f", {row['dtype']}" if len(dtypes) > 1 else ""), []).append(row)
    heights = {title: len({row["case"] for row in found}) + 2 for title, found in panels.items()}
    left, right = _halves(heights)
    tall = max(sum(heights[title] for title in half) for half in (left, right))
    figure = plot.figure(figsize=(13, 1.5 + 0.19 * tall), layout="constrained")
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
    machine = result["machine"]
    figure.suptitle(f"{machine.get('gpu', machine['cpu'])}, {machine['threads']} threads; left of 1 is faster", size=10)
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
    from matplotlib.ticker import NullLocator

    cases = list(dict.fromkeys(row["case"] for row in rows))
    for way, colour in COLOURS.items():
        found = [row for row in rows if by(row["way"]) == way]
        if not found:
            continue
        at = [cases.index(row["case"]) for row in found]
        ratios = [min(max(row["to_eager"]["median"], LIMITS[0]), LIMITS[1]) for row in found]
        low, high = zip(*(row["to_eager"]["quartiles"] for row in found), strict=True)
        axis.hlines(at, low, high, color=colour, linewidth=1, alpha=0.6)
        axis.scatter(ratios, at, s=18, color=colour, label=way, zorder=3, marker="o" if way != "reference" else "|")
    axis.axvline(1, color="black", linewidth=0.8, zorder=0)
    axis.set_xscale("log")
    axis.set_xlim(0.95 * LIMITS[0], 1.05 * LIMITS[1])
    axis.set_xticks([0.1, 0.25, 0.5, 1, 2, 4, 10], ["0.1", "0.25", "0.5", "1", "2", "4", "10"])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_yticks(range(len(cases)), cases, fontsize=7)
    axis.set_ylim(len(cases) - 0.4, -0.6)
    axis.tick_params(axis="x", labelsize=7)
    axis.grid(axis="x", linewidth=0.3)
    axis.set_title(title, fontsize=9, loc="left", pad=3)


def write(figure, path: str | os.PathLike) -> None:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    pyplot().close(figure)
    write_whole(Path(path), image.getvalue())
