"""Two pictures: the weights of right and of flipped labels (with --fsr: the dictionary), and the test accuracy."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from fastrw.demo.resume import replacing
from fastrw.demo.settings import Settings
from fastrw.demo.train import FSR_METHODS, METHODS

matplotlib.use("Agg")
from matplotlib.figure import Figure

BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito's colours, which colour-blind readers can tell apart
COLOURS = ("#4D4D4D", "#E69F00", "#CC79A7", "#009E73", BLUE)  # of the methods in their order; the last is fastrw's
STYLE = {"font.size": 12, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}
Results = list[dict[str, Any]]


def save_all(results: Results, folder: Path, settings: Settings) -> list[Path]:
    """Writes weights.png (with --fsr: dictionary.png) and accuracy.png into `folder`, each whole or not at all."""
    colours = dict(zip(FSR_METHODS if settings.fsr else METHODS, COLOURS, strict=True))
    curves = _write(folder / "accuracy.png", partial(accuracy, results=results, colours=colours))
    if settings.fsr:
        draw = partial(dictionary, results=results, colours=colours, flip=settings.flip)
        return [_write(folder / "dictionary.png", draw, 2), curves]
    return [_write(folder / "weights.png", partial(weights, results=results)), curves]


def _write(file: Path, draw: Callable[[Any], None], columns: int = 1) -> Path:
    """One picture, `draw` on its axes (`columns` side by side)."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9 if columns == 1 else 13, 5.2), dpi=120, layout="constrained")
        draw(figure.subplots(1, columns))
        with replacing(file) as temporary:
            figure.savefig(temporary, format="png")
    return file


def weights(axes, results: Results) -> None:
    """Histogram of fastrw's mean weights n * w_i, all seeds together."""
    mine = [result for result in results if result["method"] == "fastrw"]
    w, flipped = (np.concatenate([result[key].numpy() for result in mine]) for key in ("weights", "flipped"))
    seen = ~np.isnan(w)
    groups = {"right label": (w[seen & ~flipped], BLUE), "flipped label": (w[seen & flipped], ORANGE)}
    top = max(2.0, float(np.quantile(w[seen], 0.98))) if seen.any() else 2.0
    bins = np.linspace(0, top, 41)
    said = []
    for name, (group, colour) in groups.items():
        if len(group):
            share = np.full(len(group), 100 / len(group))
            label = f"{name}: {len(group)} examples, mean {group.mean():.2f}"
            axes.hist(group.clip(max=top), bins, weights=share, color=colour, alpha=0.6, label=label)
            said.append(f"{group.mean():.2f} for {name}s")
    axes.axvline(1, color="black", linestyle="--", linewidth=1, label="plain training: every weight is 1")
    axes.set_title("fastrw's mean weight: " + ", ".join(said))
    axes.set_xlabel(f"mean of n·w over the second half of the steps (above {top:.1f}: counted in the last bar)")
    axes.set_ylabel("% of the examples of that kind")
    axes.legend(frameon=False)


def accuracy(axes, results: Results, colours: dict[str, str]) -> None:
    """Mean test accuracy over the seeds, with the band from the worst seed to the best."""
    final, mine = {}, [*colours][-1]
    for name, colour in colours.items():
        curves = [result["curve"] for result in results if result["method"] == name]
        values = 100 * np.array([[accuracy for _, accuracy in curve] for curve in curves])
        final[name] = values[:, -1].mean()
        _band(axes, [step for step, _ in curves[0]], values, name, colour, 2.8 if name == mine else 1.6)
    others = {name: value for name, value in final.items() if name != mine}
    best = max(others, key=others.get)
    axes.set_title(f"At the end: {mine} {final[mine]:.1f} %, best other ({best}) {others[best]:.1f} %")
    axes.set_xlabel("steps")
    axes.set_ylabel("test accuracy, %")
    axes.legend(frameon=False, fontsize=10)


def dictionary(axes, results: Results, colours: dict[str, str], flip: float) -> None:
    """Purity of FSR's dictionary and share of zero weights by epoch, with bands from the lowest seed to the highest."""
    for side, column, chance, said in (
        (axes[0], 1, 100 * (1 - flip), "drawn at random"),
        (axes[1], 2, 100 * flip, "share of flipped labels"),
    ):
        for name, colour in colours.items():
            runs = [result["dictionary"] for result in results if result["method"] == name]
            known = [[point for point in run if point[column] is not None] for run in runs]
            if known[0]:
                values = 100 * np.array([[point[column] for point in run] for run in known])
                _band(side, [point[0] for point in known[0]], values, name, colour)
        side.axhline(chance, color="black", linestyle="--", linewidth=1, label=said)
        side.set_xlabel("steps")
        side.set_ylim(0, 103)
        side.legend(frameon=False, fontsize=10)
    axes[0].set_title("Purity of the dictionary: who is taken for clean")
    axes[0].set_ylabel("% of it rightly labelled")
    axes[1].set_title("Examples that got no weight")
    axes[1].set_ylabel("% of all weights of the epoch")


def _band(axes, steps: list[int], values: np.ndarray, name: str, colour: str, width: float | None = None) -> None:
    """A line of means with a band from the lowest to the highest: values [seeds, steps]."""
    axes.plot(steps, values.mean(0), color=colour, linewidth=width, marker="o", markersize=3, label=name)
    axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.13, linewidth=0)
