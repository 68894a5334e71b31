import torch
from hypothesis import strategies as st

from tests.op_cases import OpCase


def make(draw, n, *masked):
    s = draw.normal(n)
    for i, value in masked:
        s[i] = value
    return (s,)


CASE = OpCase(
    op="rectify_normalize",
    names=("s",),
    make=make,
    sizes=[
        (37,),
        (100, (64, float("inf")), (99, float("-inf"))),
        (1,),
        (1, (0, -1.0)),
        (2, (0, 0.0), (1, 0.0)),
        (33, (32, 1e4)),
        (1000,),
        (2, (0, float("-inf")), (1, float("inf"))),
        (0,),
    ],
    large=[(65537,), (1024, (1023, float("inf")))],
    fuzz=(st.integers(0, 300),),
    terms=lambda n, *masked: n,
    small=(7,),
    rules=[
        ({"s": torch.ones(4, 1)}, "s must be [n], got shape (4, 1)"),
        ({"s": torch.ones(4).int()}, "the dtype must be float32, float64, bfloat16 or float16, got"),
    ],
    types=[({"s": [1.0]}, "s must be a tensor, got list")],
)
