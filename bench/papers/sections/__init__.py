"""How each experiment's results are told, by the experiment's name."""

from __future__ import annotations

from collections.abc import Callable

from bench.papers.results import Results
from bench.papers.section import Section
from bench.papers.sections import fsr, l2r, reimplementation, theory_and_cost

SECTIONS: dict[str, Callable[[Results], Section]] = {
    **l2r.SECTIONS, **reimplementation.SECTIONS, **theory_and_cost.SECTIONS, **fsr.SECTIONS,
}  # fmt: skip
