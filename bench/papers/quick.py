"""Every kind of trial at a size that takes a moment: it shows that the machinery runs, and nothing else."""

from __future__ import annotations

from dataclasses import replace

from bench.papers.convergence import Lemma
from bench.papers.cost import Cost
from bench.papers.trial import Trial


def quick(trial: Trial) -> Trial:
    """The same trial in a few steps on few examples; seeds beyond the second become the second."""
    trial = replace(trial, seed=min(trial.seed, 1))
    if isinstance(trial, Lemma):
        return replace(trial, steps=6)
    if isinstance(trial, Cost):
        return replace(trial, n=10 if "FSR" in trial.ways else 4, m=2, rounds=2)
    train = 300 if trial.imbalance == "long_tail" else 60
    sizes = {"steps": 6, "n": 20, "m": 10, "train": train, "held": min(trial.held, 20), "points": 2}
    fsr = trial.fsr and replace(
        trial.fsr, capacity=max(10, trial.fsr.capacity // 100), q=10, warmup=min(2, trial.fsr.warmup - 1)
    )
    ratio = min(trial.ratio, 10) if trial.imbalance == "long_tail" else trial.ratio
    return replace(trial, **sizes, ratio=ratio, fine_tune=min(trial.fine_tune, 2), fsr=fsr)
