"""Two pictures: the weights of right and of flipped labels (with --fsr: the dictionary), and the test accuracy."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fastrw.demo.resume import replacing
from fastrw.demo.settings import Settings
from fastrw.demo.train import FSR_METHODS, METHODS

BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito's colours, which colour-blind readers can tell apart
COLOURS = ("#4D4D4D", "#E69F00", "#CC79A7", "#009E73", BLUE)  # of the methods in their order; the last is fastrw's
STYLE = {"font.size": 12, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left",
         "legend.frameon": False}  # fmt: skip
BASE = {"color": "black", "linestyle": "--", "linewidth": 1}  # of a line to compare with
Results = list[dict[str, Any]]


def save_all(results: Results, folder: Path, settings: Settings) -> list[Path]:
    """Writes weights.png (with --fsr: dictionary.png) and accuracy.png into `folder`, each whole or not at all."""
    files = [folder / ("dictionary.png" if settings.fsr else "weights.png"), folder / "accuracy.png"]
    for file, draw in zip(files, (dictionary if settings.fsr else weights, accuracy), strict=True):
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(13 if draw is dictionary else 9, 5.2), dpi=120, layout="constrained")
            draw(figure, results, settings)
            with replacing(file) as temporary:
                figure.savefig(temporary, format="png")
    return files


def weights(figure: Figure, results: Results, settings: Settings) -> None:
    """Histogram of fastrw's mean weights n * w_i, all seeds together."""
    axes = figure.subplots()
    mine = [result for result in results if result["method"] == "fastrw"]
    w, flipped = (np.concatenate([result[key].numpy() for result in mine]) for key in ("weights", "flipped"))
    seen = ~np.isnan(w)
    groups = {"right label": (w[seen & ~flipped], BLUE), "flipped label": (w[seen & flipped], ORANGE)}
    top = max(2.0, float(np.quantile(w[seen], 0.98))) if seen.any() else 2.0
    said = []
    for name, (group, colour) in groups.items():
        if len(group):
            share = np.full(len(group), 100 / len(group))
            label = f"{name}: {len(group)} examples, mean {group.mean():.2f}"
            axes.hist(group.clip(max=top), np.linspace(0, top, 41), weights=share, color=colour, alpha=0.6, label=label)
            said.append(f"{group.mean():.2f} for {name}s")
    axes.axvline(1, **BASE, label="plain training: every weight is 1")
    axes.set(
        title="fastrw's mean weight: " + ", ".join(said), ylabel="% of the examples of that kind",
        xlabel=f"mean of n·w over the second half of the steps (above {top:.1f}: counted in the last bar)",
    )  # fmt: skip
    axes.legend()


def accuracy(figure: Figure, results: Results, settings: Settings) -> None:
    """Mean test accuracy over the seeds, with the band from the worst seed to the best."""
    axes, colours = figure.subplots(), _colours(settings)
    final, mine = {}, [*colours][-1]
    for name, colour in colours.items():
        curves = [result["curve"] for result in results if result["method"] == name]
        values = _band(axes, curves, 1, name, colour, 2.8 if name == mine else 1.6)
        final[name] = values[:, -1].mean()
    best = max((name for name in final if name != mine), key=final.get)
    title = f"At the end: {mine} {final[mine]:.1f} %, best other ({best}) {final[best]:.1f} %"
    axes.set(title=title, xlabel="steps", ylabel="test accuracy, %")
    axes.legend(fontsize=10)


def dictionary(figure: Figure, results: Results, settings: Settings) -> None:
    """Purity of FSR's dictionary and share of zero weights by epoch, with bands from the lowest seed to the highest."""
    purity = "Purity of the dictionary: who is taken for clean", "% of it correctly labelled", "drawn at random"
    zeros = "Examples that got no weight", "% of all weights of the epoch", "share of flipped labels"
    panels = (1, 1 - settings.flip, *purity), (2, settings.flip, *zeros)
    for axes, (column, base, title, ylabel, label) in zip(figure.subplots(1, 2), panels, strict=True):
        for name, colour in _colours(settings).items():
            runs = [result["dictionary"] for result in results if result["method"] == name]
            known = [[point for point in run if point[column] is not None] for run in runs]
            if known[0]:
                _band(axes, known, column, name, colour)
        axes.axhline(100 * base, **BASE, label=label)
        axes.set(title=title, xlabel="steps", ylabel=ylabel, ylim=(0, 103))
        axes.legend(fontsize=10)


def _colours(settings: Settings) -> dict[str, str]:
    return dict(zip(FSR_METHODS if settings.fsr else METHODS, COLOURS, strict=True))


def _band(axes, curves: list[list[tuple]], column: int, name: str, colour: str, width: float | None = None):
    """A line of means with a band from the lowest seed to the highest -> the values in per cent [seeds, points]."""
    steps = [point[0] for point in curves[0]]
    values = 100 * np.array([[point[column] for point in curve] for curve in curves])
    axes.plot(steps, values.mean(0), color=colour, linewidth=width, marker="o", markersize=3, label=name)
    axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.13, linewidth=0)
    return values
