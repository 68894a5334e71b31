"""Every experiment by name, in the order of the report."""

from __future__ import annotations

from bench.papers.experiments import fsr, l2r, reimplementation, theory_and_cost
from bench.papers.experiments.experiment import SCALES, Experiment

_MODULES = (l2r, reimplementation, theory_and_cost, fsr)
EXPERIMENTS: dict[str, Experiment] = {each.name: each for module in _MODULES for each in module.EXPERIMENTS}

__all__ = ["EXPERIMENTS", "SCALES", "Experiment"]
