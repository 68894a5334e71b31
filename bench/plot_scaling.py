"""The picture of bench/scaling.py: time above, peak memory below, against n, m, depth and width."""

from __future__ import annotations

import os

from bench.plot import pyplot, write

COLOURS = {"plain": "0.3", "Reweighter": "C0", "update=backward": "C2", "params=last": "C4", "double_backward": "C3"}


def plot_scaling(result: dict, path: str | os.PathLike) -> None:
    """Both axes logarithmic; at the end of each line its ratio to the plain step."""
    plot, rows = pyplot(), [row for row in result["rows"] if row["ratio"]]
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    figure, every = plot.subplots(
        2, len(axes), figsize=(1 + 3 * len(axes), 6.2), squeeze=False, sharex="col", sharey="row", layout="constrained"
    )
    ends = {}
    for column, axis in enumerate(axes):
        here = [row for row in rows if row["axis"] == axis]
        for panel, key, scale in ((every[0, column], "seconds", 1e3), (every[1, column], "peak_bytes", 1e-6)):
            ends[panel] = sorted(_lines(panel, here, key, scale))
        every[1, column].set_xlabel(axis)
        values = sorted({row["value"] for row in here})
        every[1, column].set_xticks(values, map(str, values))
        every[1, column].minorticks_off()
        rest = ", ".join(f"{key} {value}" for key, value in result["own"].items() if key != axis)
        every[0, column].set_title(rest, fontsize=9)
    every[0, 0].set_ylabel("time of a step, ms")
    every[1, 0].set_ylabel("peak memory of a step, MB")
    machine = result["machine"]
    where = f"{machine.get('gpu', machine['cpu'])}, {machine['threads']} threads"
    figure.suptitle(f"{result['family']}: {where}; numbers: ratio to the plain step", size=10)
    figure.legend(*every[0, 0].get_legend_handles_labels(), ncols=8, fontsize=8, loc="outside lower center")
    figure.canvas.draw()  # now every panel has its place and limits
    for panel, lines in ends.items():
        _number(panel, lines)
    write(figure, path)


def _lines(panel, rows: list[dict], key: str, scale: float) -> list[tuple]:
    """Draws them; the end of each: height, place, ratio, colour."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ratio = "ratio" if key == "seconds" else "peak_ratio"
    ends = []
    for way, colour in COLOURS.items():
        found = sorted((row for row in rows if row["method"] == way), key=lambda row: row["value"])
        if not found:
            continue
        heights = [scale * (row[key]["median"] if key == "seconds" else row[key]) for row in found]
        panel.plot([row["value"] for row in found], heights, "o-", color=colour, label=way, markersize=3, linewidth=1.2)
        if way != "plain":
            ends.append((heights[-1], found[-1]["value"], found[-1][ratio], colour))
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
        place = panel.transData.transform((x, height))[1] * 72 / panel.figure.dpi
        lowest = max(place, lowest + 8)
        panel.annotate(f"{number:.2f}", (x, height), (5, lowest - place), textcoords="offset points", color=colour,
                       fontsize=7, va="center")  # fmt: skip
