import torch
from hypothesis import strategies as st

from tests import convolution_sizes as sizes
from tests.op_cases import OpCase


def make(draw, m, n, *layer):
    x, g, V, options = sizes.shapes(n + m, *layer)
    kind = draw.sums if n == 3 else draw.normal
    return draw.normal(*x), draw.normal(*g), n, None if m else kind(*V), *options


def terms(m, n, *layer):
    return sizes.terms(n, *layer) * max(m, 1)


CASE = OpCase(
    op="conv_instance",
    names=("x", "g", "n", "V", "kernel", "stride", "padding", "dilation", "groups"),
    make=make,
    sizes=[(m, *s) for m in (2, 0) for s in (sizes.SIZES if m else sizes.SIZES[3:6])],
    large=[(10, *s) for s in sizes.LARGE],
    fuzz=(st.integers(0, 2), st.integers(0, 3), *sizes.FUZZ),
    terms=terms,
    small=(0, *sizes.SMALL),
    rules=[
        *sizes.geometry(n="N"),
        *sizes.weight(),
        ({"n": 3}, "n must be at most the examples of x, got 3 and 2"),
        ({"n": -1}, "n must be 0 or more, got -1"),
        ({"kernel": [2]}, "kernel must be 2 integers of 1 or more, got [2]"),
        ({"V": torch.ones(4, 1, 3, 2)}, "V must have the sizes of kernel, got shape (4, 1, 3, 2)"),
    ],
    types=[*sizes.TYPES, ({"n": 2.0}, "n must be an integer, got float")],
)
