"""Ren et al. 2018, section 4.1 and Fig. 2: MNIST 4 against 9 with LeNet, ever fewer fours."""

from __future__ import annotations

from dataclasses import replace

from bench.papers.experiments.experiment import Experiment
from bench.papers.training import Training
from bench.papers.trial import Trial

METHODS = ("plain", "proportion", "resample", "hard_mining", "random", "l2r")
RATIOS = {"cpu": (20, 100, 200), "paper": (10, 20, 50, 100, 200)}
BASE = {
    "cpu": Training("mnist", pair=(4, 9), imbalance="pair", train=5000, clean=5, clean_in_training=True, model="lenet",
                    steps=300, n=100, m=10, lr=0.01, momentum=0.9, schedule="constant", points=6),
    "paper": Training("mnist", pair=(4, 9), imbalance="pair", train=5000, clean=5, clean_in_training=True,
                      model="lenet", steps=8000, n=100, m=10, lr=1e-3, momentum=0.0, schedule="constant", points=20),
}  # fmt: skip


def trials(scale: str) -> list[Trial]:
    return [
        replace(BASE[scale], method=method, ratio=ratio, seed=seed)
        for seed in range(10)
        for ratio in RATIOS[scale]
        for method in METHODS
    ]


EXPERIMENTS = (Experiment("l2r-imbalance", "MNIST 4 against 9, ever fewer fours", "L2R", "Fig. 2", "mnist", trials),)
