"""Ren et al. 2018, section 4.2-4.3: wrong labels on CIFAR-10."""

from __future__ import annotations

from dataclasses import replace

from bench.papers.experiments.common import BACKGROUND, CIFAR_CPU, UNIFORM, grid
from bench.papers.experiments.experiment import Experiment
from bench.papers.trial import Trial

LEVELS = {"cpu": (0.0, 0.2, 0.4, 0.5), "paper": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)}
CLEAN = {"cpu": (1, 10, 50), "paper": (1, 5, 10, 50, 100, 500)}  # of each class


def uniform(scale: str) -> list[Trial]:
    seeds = {"cpu": 3, "paper": 5}[scale]
    return grid(UNIFORM[scale], seeds, method=("plain", "random", "clean_only", "l2r"))


def background(scale: str) -> list[Trial]:
    seeds = {"cpu": 3, "paper": 5}[scale]
    return grid(BACKGROUND[scale], seeds, method=("plain", "random", "oracle", "clean_only", "l2r"))


def levels(scale: str) -> list[Trial]:
    return grid(BACKGROUND[scale], {"cpu": 2, "paper": 5}[scale], flip=LEVELS[scale], method=("plain", "l2r"))


def clean_set(scale: str) -> list[Trial]:
    base = replace(BACKGROUND[scale], background=3, probe=False)
    return grid(base, {"cpu": 2, "paper": 5}[scale], clean=CLEAN[scale], method=("plain", "l2r"))


EXPERIMENTS = (
    Experiment("l2r-uniform", "CIFAR-10, 40 % of the labels flipped to any other", "L2R", "Table 1, Fig. 6", "cifar10",
               uniform, differs={"cpu": CIFAR_CPU + "; 200 clean images of 1,000"}),
    Experiment("l2r-background", "CIFAR-10, 40 % of the labels flipped to one class", "L2R", "Table 2, Fig. 3, 6, 7",
               "cifar10", background, differs={"cpu": CIFAR_CPU}),
    Experiment("l2r-noise-level", "CIFAR-10, more and more labels flipped to one class", "L2R", "Fig. 5", "cifar10",
               levels, differs={"cpu": CIFAR_CPU}),
    Experiment("l2r-clean-set", "How many clean images are needed", "L2R", "Fig. 4", "cifar10", clean_set,
               differs={"cpu": CIFAR_CPU}),
)  # fmt: skip
