from tests.op_cases import OpCase
from tests.op_cases.norm_dot import FUZZ, INTS, NAMES, RULES, SIZES, TYPES, statistics

CASE = OpCase(
    op="norm_instance",
    names=NAMES[:4],
    make=statistics,
    sizes=SIZES,
    fuzz=FUZZ,
    terms=lambda n, S, *options: 3 * S,  # each is a product of three factors
    small=(3, 4, 3, 2),
    rules=[*RULES, (INTS, "the dtype must be float32, float64, bfloat16 or float16, got")],
    types=TYPES[:4],
)
