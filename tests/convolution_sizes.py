"""Sizes, strategies and rules that the cases of the convolutions share.

Sizes are n, c, o, groups and, for each dimension, (size, kernel, stride, padding, dilation); c and o are the channels
of a group.
"""

import math

import torch
from hypothesis import strategies as st

SQUARE = (8, 3, 1, 1, 1)
LAYERS = [  # c, o, groups and axes
    (3, 17, 1, (9, 3, 2, 1, 1), (7, 3, 1, 0, 1)),
    (20, 40, 1, SQUARE, SQUARE),
    (1, 6, 1, (12, 5, 1, 2, 1), (12, 5, 1, 2, 1)),
    (16, 33, 1, (6, 1, 2, 0, 1), (5, 1, 2, 0, 1)),
    (5, 3, 2, (7, 1, 1, 1, 1), (9, 2, 3, 2, 2)),
    (1, 1, 37, SQUARE, (6, 3, 2, 1, 1)),
    (2, 11, 3, (5, 3, 1, 2, 2), (4, 3, 1, 2, 2)),
    (1, 1, 1, (1, 1, 1, 0, 1), (1, 1, 1, 0, 1)),
    (4, 9, 1, (30, 7, 2, 3, 1)),
    (2, 3, 2, (5, 3, 2, 3, 2)),
]
# opcheck takes the last two, and cannot clone an empty tensor with room between its rows
SIZES = [(3, *LAYERS[0]), (2, *LAYERS[1]), (0, *LAYERS[0]), (1, *LAYERS[4]), *((3, *layer) for layer in LAYERS[2:])]
LARGE = [
    (110, 16, 16, 1, (32, 3, 1, 1, 1), (32, 3, 1, 1, 1)),
    (110, 64, 64, 1, (16, 3, 1, 1, 1), (16, 3, 1, 1, 1)),
    (3, 64, 64, 1, (80, 3, 1, 1, 1), (80, 3, 1, 1, 1)),
    (3, 64, 64, 1, SQUARE, SQUARE),
]
SMALL = (2, 1, 2, 2, (3, 2, 1, 1, 1), (2, 2, 2, 0, 1))  # x [2, 2, 3, 2], g [2, 4, 4, 1], V [4, 1, 2, 2]

_axis = st.tuples(
    st.integers(1, 11), st.sampled_from([1, 2, 3, 5]), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2)
)
FUZZ = (st.integers(1, 20), st.integers(1, 35), st.integers(1, 4), _axis, _axis)


def shapes(n, c, o, groups, *axes):
    """The shapes of x, g and V, and kernel, stride, padding, dilation, groups; x is as large as its kernel asks."""
    sizes, kernel, stride, padding, dilation = map(list, zip(*axes, strict=True))
    spans = [d * (k - 1) + 1 - 2 * p for k, p, d in zip(kernel, padding, dilation, strict=True)]
    sizes = [max(size, span) for size, span in zip(sizes, spans, strict=True)]
    out = [(size - span) // s + 1 for size, span, s in zip(sizes, spans, stride, strict=True)]
    x, g, V = (n, c * groups, *sizes), (n, o * groups, *out), (o * groups, c, *kernel)
    return x, g, V, (kernel, stride, padding, dilation, groups)


def terms(n, *layer):
    """The products that a score sums: as many as the convolution's."""
    _, g, V, _ = shapes(n, *layer)
    return math.prod(g[1:]) * math.prod(V[1:])


def geometry(g="g", n="n"):
    """What breaks the geometry of SMALL; `g` is the output's name, `n` the letter of its examples."""
    return [
        ({"x": torch.ones(2, 2)}, "x must have 1 to 3 dimensions after [n, C], got shape (2, 2)"),
        ({g: torch.ones(2, 4, 4)}, f"{g} must have as many dimensions as x, got shape (2, 4, 4) and (2, 2, 3, 2)"),
        ({g: torch.ones(3, 4, 4, 1)}, f"x [{n}, C, ...] and {g} [{n}, O, ...] must have the same {n}, got 2 and 3"),
        ({g: torch.ones(2, 4, 4, 2)}, f"{g} must have the sizes of the convolution's output, [4, 1], got [4, 2]"),
        ({g: torch.ones(2, 4, 4, 1).double()}, f"{g} must have the dtype of x, got"),
        ({g: torch.ones(2, 4, 4, 1, device="meta")}, f"{g} must be on the device of x, got"),
        ({"stride": [1]}, "stride must be 2 integers of 1 or more, got [1]"),
        ({"stride": [1, 0]}, "stride must be 2 integers of 1 or more, got [1, 0]"),
        ({"padding": [-1, 0]}, "padding must be 2 integers of 0 or more, got [-1, 0]"),
        ({"dilation": [0, 1]}, "dilation must be 2 integers of 1 or more, got [0, 1]"),
        ({"dilation": [9, 1]}, "the kernel must fit into the padded x, got [2, 2] and shape (2, 2, 3, 2)"),
        ({"groups": 0}, "groups must be 1 or more, got 0"),
        ({"groups": 3}, "groups must divide the channels of x, got 3 and 2"),
    ]


def weight(name="V"):
    """What breaks a weight at SMALL."""
    return [
        ({name: torch.ones(4, 2, 2, 2)}, f"{name} must have C / groups input channels, 1, got 2"),
        (
            {name: torch.ones(4, 1, 2)},
            f"{name} must have as many dimensions as x, got shape (4, 1, 2) and (2, 2, 3, 2)",
        ),
        ({name: torch.ones(4, 1, 2, 2).half()}, f"{name} must have the dtype of x, got"),
    ]


TYPES = [
    ({"x": [[1.0]]}, "x must be a tensor, got list"),
    ({"stride": 1}, "stride must be a sequence of integers, got 1"),
    ({"padding": [0.0, 1]}, "padding must be a sequence of integers, got [0.0, 1]"),
    ({"groups": 2.0}, "groups must be an integer, got float"),
]
