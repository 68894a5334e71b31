"""Pictures of results: whole steps by model and way, ops by case and way. Written as PNG, whole or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path

from bench.ops import BACKENDS, COMPILED, by
from bench.record import write_whole

COLOURS = dict(zip((*BACKENDS, COMPILED), ("0.6", "C0", "C2", "C1", "C3"), strict=True))  # way -> colour
LIMITS = (0.05, 20)  # of the axis of ratios: a mark beyond them is drawn at the edge


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def plot_steps(runs: list[dict], path: str | os.PathLike) -> None:
    """Ratio to a plain step, the FLOP floor as a tick on each bar; a panel a malloc setting, no bar where no number."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(len(runs), 1, figsize=(11, 4.2 * len(runs)), squeeze=False, layout="constrained")
    for axis, run in zip(axes[:, 0], runs, strict=True):
        models = list(dict.fromkeys(row["model"] for row in run["rows"]))
        ways = [way for way in dict.fromkeys(row["method"] for row in run["rows"]) if way != "plain"]
        top = 5.0
        for index, way in enumerate(ways):
            rows = [row for row in run["rows"] if row["method"] == way and row["ratio"]]
            at = [models.index(row["model"]) + (index - (len(ways) - 1) / 2) * 0.8 / len(ways) for row in rows]
            axis.bar(at, [min(row["ratio"], top) for row in rows], 0.8 / len(ways), label=way, color=f"C{index}")
            for x, row in zip(at, rows, strict=True):
                if row["floor"]:
                    axis.hlines(row["floor"], x - 0.4 / len(ways), x + 0.4 / len(ways), color="black", linewidth=1)
                if row["ratio"] > top:
                    axis.annotate(f"{row['ratio']:.1f}", (x, top), ha="center", va="bottom", fontsize=8)
        axis.axhline(1, color="grey", linewidth=0.8, zorder=0)
        axis.set(xticks=range(len(models)), xticklabels=models, xlim=(-0.5, len(models) - 0.5), ylim=(0, top + 0.3))
        axis.set_ylabel("time ÷ plain step")
        axis.set_title(f"malloc {run['malloc']}; black tick: FLOP floor", fontsize=10)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), ncols=8, fontsize=8, loc="outside lower center")
    _write(figure, path)


def plot_ops(result: dict, path: str | os.PathLike) -> None:
    """Ratio to the fastest eager form, a line a case, its quartiles as a bar across each mark; ops in two columns."""
    pyplot = _pyplot()
    rows = [row for row in result["rows"] if row["to_eager"] and by(row["way"]) in COLOURS]
    dtypes = {row["dtype"] for row in rows}
    panels: dict[str, list[dict]] = {}
    for row in rows:
        panels.setdefault(row["op"] + (f", {row['dtype']}" if len(dtypes) > 1 else ""), []).append(row)
    heights = {title: len({row["case"] for row in found}) + 2 for title, found in panels.items()}
    left, right = _halves(heights)
    tall = max(sum(heights[title] for title in half) for half in (left, right))
    figure = pyplot.figure(figsize=(13, 1.5 + 0.19 * tall), layout="constrained")
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
    _write(figure, path)


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


def _write(figure, path: str | os.PathLike) -> None:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    _pyplot().close(figure)
    write_whole(Path(path), image.getvalue())
