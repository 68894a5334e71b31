"""Lemma 1's falling validation loss, and what a step costs: in L2R's section 3.3-3.4, the reimplementation's open
question 3, and FSR's Fig. 4."""

from __future__ import annotations

from bench.papers.convergence import Lemma
from bench.papers.cost import Cost
from bench.papers.experiments.experiment import Experiment
from bench.papers.trial import Trial

RATES = (1.0, 3.0, 10.0, 20.0, 100.0)  # 20 = n
MODELS = {
    "cpu": ("lenet", "mlp", "resnet32_gn"),
    "paper": ("lenet", "mlp", "transformer", "resnet32_gn", "resnet32_bn"),
}
BATCHES = {"cpu": (10, 100), "paper": (10, 50, 100, 200, 400)}


def lemma(scale: str) -> list[Trial]:
    steps = {"cpu": 1000, "paper": 20_000}[scale]
    return [Lemma("mnist", seed, rate=rate, steps=steps) for seed in range(2) for rate in RATES]


def overhead(scale: str) -> list[Trial]:
    rounds = {"cpu": 3, "paper": 25}[scale]
    return [Cost(model=model, n=n, m=10, rounds=rounds) for model in MODELS[scale] for n in BATCHES[scale]]


def fsr_cost(scale: str) -> list[Trial]:
    ways, rounds = ("Reweighter", "double_backward", "FSR"), {"cpu": 5, "paper": 25}[scale]
    sizes = {"cpu": {"lenet": 100, "transformer": 32, "resnet32_bn": 50},
             "paper": {"lenet": 100, "transformer": 64, "resnet32_bn": 100}}[scale]  # fmt: skip
    return [Cost(model=model, n=n, m=n, ways=ways, rounds=rounds) for model, n in sizes.items()]


EXPERIMENTS = (
    Experiment("lemma", "The validation loss never rises", "L2R", "Lemma 1, Theorem 2", "mnist", lemma,
               differs={"cpu": "softmax regression in float64, 1,000 steps", "paper": "the papers ran none"}),
    Experiment("overhead", "Overhead against model and batch", "reimplementation", "open question 3", None, overhead,
               differs={"cpu": "smaller batches, one thread of a CPU"}),
    Experiment("fsr-cost", "What FSR costs", "FSR", "Fig. 4 left", None, fsr_cost,
               differs={"cpu": "other networks, one thread of a CPU"}),
)  # fmt: skip
