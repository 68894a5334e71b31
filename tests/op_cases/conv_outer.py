import torch
from hypothesis import strategies as st

from tests.convolution_sizes import FUZZ, LARGE, SIZES, SMALL, TYPES, geometry, shapes
from tests.op_cases import OpCase


def make(draw, n, *layer):
    x, g, _, options = shapes(n, *layer)
    return draw.normal(*x), draw.normal(*g), draw.weights(n) if n != 1 else None, *options


def terms(n, *layer):
    _, g, _, _ = shapes(n, *layer)
    return n * torch.Size(g[2:]).numel()


CASE = OpCase(
    op="conv_outer",
    names=("x", "g", "w", "kernel", "stride", "padding", "dilation", "groups"),
    make=make,
    sizes=[*SIZES[:2], (40, *SIZES[0][1:]), *SIZES[2:]],
    large=LARGE,
    rounds_on_gpu=True,
    fuzz=(st.integers(0, 6), *FUZZ),
    terms=terms,
    small=SMALL,
    rules=[
        *geometry(),
        ({"w": torch.ones(3)}, "x [n, C, ...] and w [n] must have the same n, got 2 and 3"),
        ({"w": torch.ones(2).half()}, "w must have the dtype of x, got"),
        ({"kernel": [2]}, "kernel must be 2 integers of 1 or more, got [2]"),
        ({"kernel": [0, 2]}, "kernel must be 2 integers of 1 or more, got [0, 2]"),
    ],
    types=[*TYPES, ({"w": [1.0, 1.0]}, "w must be a tensor, got list")],
)
