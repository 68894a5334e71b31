"""Pictures that several experiments draw: lines, bars, training curves, confusion counts, weight histograms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

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

First, P, Made = TypeVar("First"), ParamSpec("P"), TypeVar("Made")
Draw = Callable[[Any], None]  # fills a matplotlib figure
Series = dict[str, tuple[str, list[Spread]]]  # label -> (colour, a number per place)


def deferred(make: Callable[Concatenate[First, P], Made]) -> Callable[P, Callable[[First], Made]]:
    """`make` as a function of all but its first argument, a figure or results, that returns a function of the first."""
    return wraps(make)(lambda *args, **options: lambda first: make(first, *args, **options))


@deferred
def lines(figure: Any, places: Sequence[float], series: Series, *, log: bool, ticks: list[str], **labels: str) -> None:
    """Means over the seeds with bars from the worst to the best; `ticks` labels the places on the x axis."""
    axes = figure.subplots()
    for label, (colour, values) in series.items():
        if points := [(x, y) for x, y in zip(places, values, strict=True) if y]:
            mean, low, high = (100 * np.array([pick(y.values) for _, y in points]) for pick in (np.mean, min, max))
            axes.errorbar([x for x, _ in points], mean, [mean - low, high - mean], label=label, color=colour,
                          marker="o", markersize=4, capsize=2,
                          linewidth=2.4 if colour in (BLUE, ORANGE) else 1.4)  # fmt: skip
    axes.set(xscale="log" if log else "linear", **labels)
    axes.set_xticks(places, ticks)
    axes.minorticks_off()
    figure.legend(loc="outside right center")


@deferred
def bars(figure: Any, ticks: Sequence[str], series: Series, ylabel: str, scale: float = 100) -> None:
    """A group of bars per tick, with the mean above it and a line from the worst seed to the best."""
    axes = figure.subplots()
    wide = 0.8 / len(series)
    for index, (label, (colour, values)) in enumerate(series.items()):
        at = [place + (index - (len(series) - 1) / 2) * wide for place in range(len(ticks))]
        pairs = [(x, value) for x, value in zip(at, values, strict=True) if value]
        shown = axes.bar([x for x, _ in pairs], [scale * v.mean for _, v in pairs], wide, color=colour, label=label)
        axes.bar_label(shown, fmt="%.1f" if scale == 100 else "%.2f", fontsize=8, padding=2)
        for x, value in pairs:
            axes.vlines(x, scale * min(value.values), scale * max(value.values), color="black", linewidth=1)
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set_ylabel(ylabel)
    if len(series) > 1:
        figure.legend(loc="outside upper center", ncols=len(series))


@deferred
def curves(figure: Any, named: dict[str, tuple[str, list[dict]]]) -> None:
    """Test accuracy (solid) and accuracy on the training labels as they are (dotted) over the steps, means over seeds.
    named: label -> (colour, results)."""
    axes = figure.subplots()
    for label, (colour, results) in named.items():
        steps, test, _, train = np.array([result["curve"] for result in results], float).mean(0).T
        axes.plot(steps, 100 * test, "-", color=colour, label=label, linewidth=1.8)
        axes.plot(steps, 100 * train, ":", color=colour, linewidth=1.8)
    axes.set(xlabel="steps", ylabel="accuracy, %",
             title="solid: test images; dotted: training labels as they are, wrong ones included")  # fmt: skip
    figure.legend(loc="outside right center")


@deferred
def confusions(figure: Any, named: dict[str, list[dict]]) -> None:
    """Shares of each true class's test images by predicted class, all seeds together. label -> results."""
    panels = figure.subplots(1, len(named), squeeze=False)[0]
    for axes, (label, results) in zip(panels, named.items(), strict=True):
        counts = np.sum([result["confusion"] for result in results], 0)
        shown = axes.imshow(counts / counts.sum(1, keepdims=True).clip(1), cmap="Blues", vmin=0, vmax=1)
        classes = range(len(counts))
        axes.set(title=label, xlabel="predicted class", ylabel="true class", xticks=classes, yticks=classes)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(True)
    figure.colorbar(shown, ax=panels, shrink=0.8, label="share of the true class")


@deferred
def weights(figure: Any, named: dict[str, list[dict]]) -> None:
    """Histograms of n * w of right and of wrong labels. title -> mappings {"right": histogram, "wrong": histogram}."""
    panels = figure.subplots(1, len(named), squeeze=False, sharey=True)[0]
    places = [-0.15, *(np.arange(BINS) + 0.5) * TOP / BINS]
    for axes, (title, found) in zip(panels, named.items(), strict=True):
        for group, colour in (("right", BLUE), ("wrong", ORANGE)):
            counts = np.sum([[each[group]["zero"], *each[group]["counts"]] for each in found], 0)
            if counts.any():
                share = 100 * counts / counts.sum()
                label = f"{group} label: {share[0]:.0f} % at 0"
                axes.bar(places, share, TOP / BINS, color=colour, alpha=0.6, label=label)
        axes.set(title=title, xlabel=f"n·w (exact 0 apart; above {TOP:g} in the last bar)")
        axes.legend()
    panels[0].set_ylabel("% of the kind")
