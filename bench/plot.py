"""A picture of an end-to-end run: ratio to a plain step by model and way, the FLOP floor as a tick on each bar."""

from __future__ import annotations

import io
import os
from pathlib import Path

from bench.record import write_whole


def plot(runs: list[dict], path: str | os.PathLike) -> None:
    """One panel a malloc setting; a way without a number has no bar. Written as PNG, whole or not at all."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

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
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    pyplot.close(figure)
    write_whole(Path(path), image.getvalue())
