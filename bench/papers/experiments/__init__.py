"""Every experiment by name, in the order of the report."""

from __future__ import annotations

from bench.papers.experiments import l2r_imbalance, l2r_noise, reimplementation
from bench.papers.experiments.experiment import SCALES, Experiment

EXPERIMENTS: dict[str, Experiment] = {
    each.name: each
    for module in (l2r_imbalance, l2r_noise, reimplementation)
    for each in module.EXPERIMENTS
}  # fmt: skip

__all__ = ["EXPERIMENTS", "SCALES", "Experiment"]
