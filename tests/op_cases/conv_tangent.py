import torch
from hypothesis import strategies as st

from tests.convolution_sizes import FUZZ, LARGE, SIZES, SMALL, TYPES, geometry, shapes, weight
from tests.op_cases import OpCase


def make(draw, n, *layer):
    x, y, V, (_, *options) = shapes(n, *layer)
    bias, moves, wide = n != 2, n != 1, n == 3
    kind = draw.sums if wide else draw.normal
    t, W = (kind(*x), draw.normal(*V)) if moves else (None, None)
    return draw.normal(*x), kind(*V), kind(V[0]) if bias else None, t, W, draw.normal(*y), *options


def terms(n, *layer):
    _, y, V, _ = shapes(n, *layer)
    return 2 * n * torch.Size(y[2:]).numel() * torch.Size(V[1:]).numel()


CASE = OpCase(
    op="conv_tangent",
    names=("x", "V", "v_b", "t", "W", "y", "stride", "padding", "dilation", "groups"),
    make=make,
    sizes=SIZES,
    large=LARGE,
    fuzz=(st.integers(0, 3), *FUZZ),
    terms=terms,
    small=SMALL,
    rules=[
        *geometry("y"),
        *weight(),
        ({"t": None}, "t and W must be given together, got one alone"),
        ({"t": torch.ones(2, 2, 3, 3)}, "t must have the shape of x, got (2, 2, 3, 3) and (2, 2, 3, 2)"),
        ({"W": torch.ones(4, 1, 3, 2)}, "W must have the shape of V, got (4, 1, 3, 2) and (4, 1, 2, 2)"),
    ],
    types=[*TYPES, ({"V": [[1.0]]}, "V must be a tensor, got list")],
)
