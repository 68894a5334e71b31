"""Two pictures: the weights of rightly labelled against flipped examples, and the test accuracy over the steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from fastrw.demo.methods import METHODS
from fastrw.demo.whole import replacing

matplotlib.use("Agg")
from matplotlib.figure import Figure

BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito's colours: told apart by every eye
COLOURS = dict(zip(METHODS, ("#4D4D4D", "#E69F00", "#CC79A7", "#009E73", BLUE), strict=True))
STYLE = {"font.size": 12, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}


def save_all(results: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Writes weights.png and accuracy.png into `folder`, each whole or not at all."""
    return [write(folder / "weights.png", weights, results), write(folder / "accuracy.png", accuracy, results)]


def write(file: Path, draw: Callable[[Any, list], None], results: list[dict[str, Any]], columns: int = 1) -> Path:
    """One picture, `draw` on its axes (of `columns` side by side)."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9 if columns == 1 else 13, 5.2), dpi=120, layout="constrained")
        draw(figure.subplots(1, columns), results)
        with replacing(file) as temporary:
            figure.savefig(temporary, format="png")
    return file


def weights(axes, results: list[dict[str, Any]]) -> None:
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


def accuracy(axes, results: list[dict[str, Any]], colours: dict[str, str] = COLOURS, mine: str = "fastrw") -> None:
    """Mean test accuracy over the seeds, with the band from the worst seed to the best."""
    final = {}
    for name, colour in colours.items():
        curves = [result["curve"] for result in results if result["method"] == name]
        steps = [step for step, _ in curves[0]]
        values = 100 * np.array([[accuracy for _, accuracy in curve] for curve in curves])
        final[name] = values[:, -1].mean()
        width = 2.8 if name == mine else 1.6
        axes.plot(steps, values.mean(0), color=colour, linewidth=width, marker="o", markersize=3, label=name)
        axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.13, linewidth=0)
    others = {name: value for name, value in final.items() if name != mine}
    best = max(others, key=others.get)
    axes.set_title(f"At the end: {mine} {final[mine]:.1f} %, best other ({best}) {others[best]:.1f} %")
    axes.set_xlabel("steps")
    axes.set_ylabel("test accuracy, %")
    axes.legend(frameon=False, fontsize=10)
