"""An experiment: what a paper claims, the trials that test it, and how their results are shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.papers.trial import Trial

if TYPE_CHECKING:
    from bench.papers.results import Results
    from bench.papers.section import Section

SCALES = ("cpu", "paper")


@dataclass(frozen=True)
class Experiment:
    """`trials(scale)` lists every trial, results shared by experiments included; `show(results)` makes its section of
    the report; `differs` says by scale in what it is not the paper's setting."""

    name: str
    title: str
    paper: str  # "L2R", "FSR" or "reimplementation"
    shows: str  # which figure or table, or which open question
    data: str | None
    trials: Callable[[str], list[Trial]]
    show: Callable[[Results], Section] | None = None
    differs: dict[str, str] = field(default_factory=dict)
