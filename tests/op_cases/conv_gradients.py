import torch
from hypothesis import strategies as st

from tests.convolution_sizes import FUZZ, LARGE, SIZES, SMALL, TYPES, geometry, shapes
from tests.op_cases import OpCase


def make(draw, n, *layer):
    x, g, _, options = shapes(n, *layer)
    return draw.normal(*x), draw.normal(*g), *options


def terms(n, *layer):
    _, g, _, _ = shapes(n, *layer)
    return torch.Size(g[2:]).numel()


CASE = OpCase(
    op="conv_gradients",
    names=("x", "g", "kernel", "stride", "padding", "dilation", "groups"),
    make=make,
    sizes=SIZES,
    large=LARGE,
    fuzz=(st.integers(0, 3), *FUZZ),
    terms=terms,
    small=SMALL,
    rules=[*geometry(), ({"kernel": [2]}, "kernel must be 2 integers of 1 or more, got [2]")],
    types=TYPES,
)
