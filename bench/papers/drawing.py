"""Pictures that several experiments draw: lines, bars, training curves, confusion counts, weight histograms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.papers.measure import BINS, TOP
from bench.papers.results import Spread

STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left",
         "axes.titlesize": 10, "legend.frameon": False, "legend.fontsize": 9}  # fmt: skip
# Okabe and Ito's colours, which colour-blind readers can tell apart
COLOURS = {"plain": "#4D4D4D", "proportion": "#E69F00", "resample": "#009E73", "hard_mining": "#56B4E9",
           "random": "#CC79A7", "oracle": "#F0A030", "clean_only": "#999933", "l2r": "#0072B2", "fsr": "#D55E00",
           "fsr_2": "#882255"}  # fmt: skip
BLUE, ORANGE = COLOURS["l2r"], COLOURS["fsr"]

Draw = Callable[[Any], None]  # fills a matplotlib figure
Series = dict[str, tuple[str, list[Spread]]]  # label -> (colour, a number per place)


def lines(places: Sequence[float], series: Series, xlabel: str, ylabel: str, *, log: bool, ticks: list[str]) -> Draw:
    """Means over the seeds with bars from the worst to the best; `ticks` labels the places on the x axis."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for label, (colour, values) in series.items():
            points = [(x, y) for x, y in zip(places, values, strict=True) if y]
            if not points:
                continue
            x, y = [x for x, _ in points], 100 * np.array([y.mean for _, y in points])
            low, high = (100 * np.array([pick(y.values) for _, y in points]) for pick in (min, max))
            axes.errorbar(x, y, [y - low, high - y], label=label, color=colour, marker="o", markersize=4, capsize=2,
                          linewidth=2.4 if colour in (BLUE, ORANGE) else 1.4)  # fmt: skip
        if log:
            axes.set_xscale("log")
        axes.set_xticks(places, ticks)
        axes.minorticks_off()
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        figure.legend(loc="outside right center")

    return draw


def bars(labels: Sequence[str], series: Series, ylabel: str, *, scale: float = 100) -> Draw:
    """A group of bars per label, with the mean above it and a line from the worst seed to the best."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        wide = 0.8 / len(series)
        for index, (label, (colour, values)) in enumerate(series.items()):
            at = [place + (index - (len(series) - 1) / 2) * wide for place in range(len(labels))]
            pairs = [(x, value) for x, value in zip(at, values, strict=True) if value]
            shown = axes.bar([x for x, _ in pairs], [scale * v.mean for _, v in pairs], wide, color=colour, label=label)
            axes.bar_label(shown, fmt="%.1f" if scale == 100 else "%.2f", fontsize=8, padding=2)
            for x, value in pairs:
                axes.vlines(x, scale * min(value.values), scale * max(value.values), color="black", linewidth=1)
        axes.set_xticks(range(len(labels)), labels)
        axes.set_ylabel(ylabel)
        if len(series) > 1:
            figure.legend(loc="outside upper center", ncols=len(series))

    return draw


def curves(named: dict[str, tuple[str, list[dict]]]) -> Draw:
    """Test accuracy (solid) and accuracy on the training labels as they are (dotted) over the steps, means over seeds.
    named: label -> (colour, results)."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for label, (colour, results) in named.items():
            steps = [point[0] for point in results[0]["curve"]]
            for column, style in ((1, "-"), (3, ":")):
                y = 100 * np.mean([[point[column] for point in result["curve"]] for result in results], 0)
                axes.plot(steps, y, style, color=colour, label=label if column == 1 else None, linewidth=1.8)
        axes.set_xlabel("steps")
        axes.set_ylabel("accuracy, %")
        axes.set_title("solid: test images; dotted: training labels as they are, wrong ones included")
        figure.legend(loc="outside right center")

    return draw


def confusions(named: dict[str, list[dict]]) -> Draw:
    """Shares of each true class's test images by predicted class, all seeds together. label -> results."""

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, len(named), squeeze=False)[0]
        for axes, (label, results) in zip(panels, named.items(), strict=True):
            counts = np.sum([result["confusion"] for result in results], 0)
            shown = axes.imshow(counts / counts.sum(1, keepdims=True).clip(1), cmap="Blues", vmin=0, vmax=1)
            axes.set_title(label)
            axes.set_xlabel("predicted class")
            axes.set_ylabel("true class")
            axes.set_xticks(range(len(counts)))
            axes.set_yticks(range(len(counts)))
            axes.tick_params(labelsize=7)
            axes.spines[["top", "right"]].set_visible(True)
        figure.colorbar(shown, ax=panels, shrink=0.8, label="share of the true class")

    return draw


def weights(named: dict[str, list[dict]]) -> Draw:
    """Histograms of n * w of right and of wrong labels. title -> mappings {"right": histogram, "wrong": histogram}."""

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, len(named), squeeze=False, sharey=True)[0]
        edges = np.linspace(0, TOP, BINS + 1)
        for axes, (title, found) in zip(panels, named.items(), strict=True):
            for group, colour in (("right", BLUE), ("wrong", ORANGE)):
                zero = sum(each[group]["zero"] for each in found)
                counts = np.sum([each[group]["counts"] for each in found], 0)
                total = zero + counts.sum()
                if total:
                    bars = 100 * np.concatenate([[zero], counts]) / total
                    places = np.concatenate([[-0.15], (edges[:-1] + edges[1:]) / 2])
                    label = f"{group} label: {100 * zero / total:.0f} % at 0"
                    axes.bar(places, bars, TOP / BINS, color=colour, alpha=0.6, label=label)
            axes.set_title(title)
            axes.set_xlabel(f"n·w (exact 0 apart; above {TOP:g} in the last bar)")
            axes.legend()
        panels[0].set_ylabel("% of the kind")

    return draw
