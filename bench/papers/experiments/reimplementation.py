"""The reimplementation (Patil et al., arXiv 2405.06859): imbalanced CIFAR-10, skin lesions, and its open questions."""

from __future__ import annotations

from dataclasses import replace

from bench.papers.experiments.common import BACKGROUND, BIAS, CIFAR_CPU, LESIONS, LONG_TAIL, grid
from bench.papers.experiments.experiment import Experiment
from bench.papers.trial import Trial

BIASES = {"cpu": (0.5, 0.7, 0.9), "paper": (0.5, 0.6, 0.7, 0.8, 0.9)}
PER_CLASS = {"cpu": (1, 3, 10, 30), "paper": (1, 3, 5, 10, 20, 40)}
EVERY = {"cpu": (1, 2, 5, 20), "paper": (1, 2, 5, 10, 50)}


def bias(scale: str) -> list[Trial]:
    return grid(BIAS[scale], {"cpu": 2, "paper": 5}[scale], ratio=BIASES[scale], method=("plain", "l2r"))


def lesions(scale: str) -> list[Trial]:
    return grid(LESIONS[scale], 3, method=("plain", "resample", "l2r"))


def per_class(scale: str) -> list[Trial]:
    return grid(LESIONS[scale], 2, clean=PER_CLASS[scale], method=("l2r",))


def both(scale: str) -> list[Trial]:
    base = replace(LONG_TAIL[scale], noise="uniform", flip=0.4, ratio=10)
    return grid(base, 2, method=("plain", "proportion", "resample", "random", "l2r"))


def every(scale: str) -> list[Trial]:
    return grid(BACKGROUND[scale], 2, method=("l2r",), every=EVERY[scale])


LESIONS_CPU = (
    "images at 28x28 and our own split by lesion (8,022 training images); 800 steps of Adam at 0.003, a network of "
    "three strided convolutions with GroupNorm"
)
EXPERIMENTS = (
    Experiment("bias", "CIFAR-10 with one class at 50 to 90 % of the images", "reimplementation", "its toy problem",
               "cifar10", bias, differs={"cpu": CIFAR_CPU, "paper": "network and steps are ours: none are told"}),
    Experiment("lesions", "HAM10000 skin lesions, 7 classes", "reimplementation", "its main result", "ham10000",
               lesions, differs={"cpu": LESIONS_CPU, "paper": "28x28 images, own split, ResNet-32"}),
    Experiment("validation-size", "How many clean images a class: 1, 3, 5, ...", "reimplementation",
               "open question 2, next check 2", "ham10000", per_class, differs={"cpu": LESIONS_CPU}),
    Experiment("noise-and-imbalance", "Wrong labels and rare classes at once", "reimplementation", "open question 1",
               "cifar10", both, differs={"cpu": CIFAR_CPU.replace("2,000", "4,100")}),
    Experiment("every", "Weights at one step in N", "reimplementation", "its third experiment", "cifar10", every,
               differs={"cpu": CIFAR_CPU}),
)  # fmt: skip
