"""The sizes that every op is measured on, taken from real layers: CASES[op][name].

Ops in the order of fastrw/ops/reference.py; then whole uses of a layer, several ops each."""

from bench.cases.case import Case, Draw, is_large
from bench.cases.convolutions import CONVOLUTIONS
from bench.cases.norms import NORM_CASES
from bench.cases.others import OTHERS
from bench.cases.rows import ROWS
from bench.cases.uses import USES

__all__ = ["CASES", "Case", "Draw", "is_large"]

CASES: dict[str, dict[str, Case]] = {**ROWS, **CONVOLUTIONS, **NORM_CASES, **OTHERS, **USES}
