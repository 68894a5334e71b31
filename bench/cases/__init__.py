"""The sizes every op is measured on, taken from real layers: CASES[op][name], ops in the order of fastrw/reference.py."""

from __future__ import annotations

from bench.cases.case import Case, Draw
from bench.cases.convolutions import CONVOLUTIONS
from bench.cases.norms import NORM_CASES
from bench.cases.others import OTHERS
from bench.cases.rows import ROWS

__all__ = ["CASES", "Case", "Draw"]

CASES: dict[str, dict[str, Case]] = {**ROWS, **CONVOLUTIONS, **NORM_CASES, **OTHERS}
