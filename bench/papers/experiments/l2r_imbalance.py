"""Ren et al. 2018, section 4.1 and Fig. 2: MNIST 4 against 9 with LeNet, ever fewer fours."""

from __future__ import annotations

from dataclasses import replace

from bench.papers.experiments.common import grid
from bench.papers.experiments.experiment import Experiment
from bench.papers.training import Training
from bench.papers.trial import Trial

METHODS = ("plain", "proportion", "resample", "hard_mining", "random", "l2r")
_BASE = Training(
    "mnist", pair=(4, 9), imbalance="pair", train=5000, clean=5, clean_in_training=True, model="lenet", n=100, m=10
)
PAPER = replace(_BASE, steps=8000, lr=1e-3, momentum=0.0, schedule="constant", points=20)
CALM = replace(_BASE, steps=600, lr=0.05, momentum=0.0, schedule="cosine", points=6)
HASTY = replace(_BASE, steps=300, lr=0.01, momentum=0.9, schedule="constant", points=6)


def trials(scale: str) -> list[Trial]:
    if scale == "paper":
        return grid(PAPER, 10, ratio=(10, 20, 50, 100, 200), method=METHODS)
    return grid(CALM, 3, ratio=(200,), method=METHODS) + grid(HASTY, 10, ratio=(20, 100, 200), method=METHODS)


EXPERIMENTS = (
    Experiment("l2r-imbalance", "MNIST 4 against 9, ever fewer fours", "L2R", "Fig. 2", "mnist", trials,
               differs={"cpu": "600 steps without momentum at 0.05 falling along a cosine, 3 splits (calm), and 300 "
                               "steps at 0.01 with momentum 0.9, 10 splits (hasty); in the paper 8,000 steps at 0.001, "
                               "10 splits"}),
)  # fmt: skip
