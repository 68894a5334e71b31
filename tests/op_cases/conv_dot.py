import torch
from hypothesis import strategies as st

from tests.convolution_sizes import FUZZ, LARGE, SIZES, SMALL, TYPES, geometry, shapes, terms, weight
from tests.op_cases import OpCase


def make(draw, n, *layer):
    x, g, V, (_, *options) = shapes(n, *layer)
    bias, wide = n != 2, n == 3
    kind = draw.sums if wide else draw.normal
    return draw.normal(*x), draw.normal(*g), kind(*V), kind(V[0]) if bias else None, *options


CASE = OpCase(
    op="conv_dot",
    names=("x", "g", "V", "v_b", "stride", "padding", "dilation", "groups"),
    make=make,
    sizes=SIZES,
    large=LARGE,
    fuzz=(st.integers(0, 3), *FUZZ),
    terms=terms,
    small=SMALL,
    rules=[
        *geometry(),
        *weight(),
        ({"V": torch.ones(5, 1, 2, 2)}, "g [n, O, ...] and V [O, ...] must have the same O, got 4 and 5"),
        ({"v_b": torch.ones(3)}, "g [n, O, ...] and v_b [O] must have the same O, got 4 and 3"),
    ],
    types=[*TYPES, ({"V": [[1.0]]}, "V must be a tensor, got list")],
)
