"""Every experiment by name, in the order of the report."""

from __future__ import annotations

from bench.papers.experiments import l2r_imbalance
from bench.papers.experiments.experiment import SCALES, Experiment

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (l2r_imbalance,)
}  # fmt: skip

__all__ = ["EXPERIMENTS", "SCALES", "Experiment"]
