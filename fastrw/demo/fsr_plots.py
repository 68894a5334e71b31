"""Two pictures of training without clean examples: the dictionary over the epochs, and the test accuracy."""

from pathlib import Path
from typing import Any

import numpy as np

from fastrw.demo.fsr_run import FSR_METHODS
from fastrw.demo.plots import BLUE, accuracy, write

COLOURS = dict(zip(FSR_METHODS, ("#4D4D4D", "#E69F00", "#CC79A7", "#009E73", BLUE), strict=True))
BEST = list(FSR_METHODS)[-1]


def save_all(results: list[dict[str, Any]], folder: Path, flip: float) -> list[Path]:
    """Writes dictionary.png and accuracy.png into `folder`, each whole or not at all."""

    def curves(axes, results) -> None:
        accuracy(axes, results, COLOURS, BEST)

    def epochs(axes, results) -> None:
        dictionary(axes, results, flip)

    return [write(folder / "dictionary.png", epochs, results, 2), write(folder / "accuracy.png", curves, results)]


def dictionary(axes, results: list[dict[str, Any]], flip: float) -> None:
    """Purity of the dictionary and share of zero weights, by epoch: means over the seeds, bands from least to most."""
    for side, column, chance, said in (
        (axes[0], 1, 100 * (1 - flip), "drawn at random"),
        (axes[1], 2, 100 * flip, "share of flipped labels"),
    ):
        for name, colour in COLOURS.items():
            runs = [result["dictionary"] for result in results if result["method"] == name]
            known = [point for point in runs[0] if point[column] is not None]
            if not known:
                continue
            values = 100 * np.array([[point[column] for point in run if point[column] is not None] for run in runs])
            steps = [point[0] for point in known]
            side.plot(steps, values.mean(0), color=colour, marker="o", markersize=3, label=name)
            side.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.13, linewidth=0)
        side.axhline(chance, color="black", linestyle="--", linewidth=1, label=said)
        side.set_xlabel("steps")
        side.set_ylim(0, 103)
        side.legend(frameon=False, fontsize=10)
    axes[0].set_title("Purity of the dictionary: who is taken for clean")
    axes[0].set_ylabel("% of it rightly labelled")
    axes[1].set_title("Examples that got no weight")
    axes[1].set_ylabel("% of all weights of the epoch")
