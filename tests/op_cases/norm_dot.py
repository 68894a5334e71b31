import torch
from hypothesis import strategies as st

from tests.op_cases import OpCase

NAMES = ("x", "g", "mean", "rstd", "V_gamma", "V_beta")
flag = st.booleans()
FUZZ = (
    *(st.integers(0, most) for most in (9, 80, 40)),
    *(st.integers(1, 4), st.sampled_from(("", "S", "nS")), flag, flag),
)


def statistics(draw, n, S, width, G, fixed="", mean=True, wide=True):
    """x, g, mean, rstd with `width` channels a group; `fixed` names the dimensions along which nothing varies."""
    shape = [size if letter not in fixed else min(size, 1) for letter, size in zip("nS", (n, S), strict=True)]
    number = draw.sums if wide else draw.normal
    x, g = draw.normal(n, S, G * width), draw.normal(n, S, G * width)
    mean = number(*shape, G).expand(n, S, G) if mean else None
    if draw.positive and mean is not None:
        mean = mean.neg()  # x - mean must not cancel either
    return x, g, mean, number(*shape, G).expand(n, S, G)


def make(draw, n, S, width, G, fixed="", mean=True, wide=True, gamma=True, beta=True):
    number = draw.sums if wide else draw.normal
    V_gamma, V_beta = number(G * width) if gamma else None, number(G * width) if beta else None
    return *statistics(draw, n, S, width, G, fixed, mean, wide), V_gamma, V_beta


RULES = [
    ({"x": torch.ones(4)}, "x must be [n, S, C], got shape (4,)"),
    ({"rstd": torch.ones(3, 4)}, "rstd must be [n, S, G], got shape (3, 4)"),
    ({"g": torch.ones(3, 4, 5)}, "x [n, S, C] and g [n, S, C] must have the same C, got 6 and 5"),
    ({"mean": torch.ones(3, 1, 2)}, "x [n, S, C] and mean [n, S, G] must have the same S, got 4 and 1"),
    ({"rstd": torch.ones(3, 4, 1)}, "mean [n, S, G] and rstd [n, S, G] must have the same G, got 2 and 1"),
    ({"g": torch.ones(3, 4, 6).half()}, "g must have the dtype of x, got"),
    ({"rstd": torch.ones(3, 4, 2).double()}, "rstd must have the dtype of x, got"),
    ({"g": torch.ones(3, 4, 6, device="meta")}, "g must be on the device of x, got"),
    ({"mean": None, "rstd": torch.ones(3, 4, 4)}, "rstd [n, S, G] must have a G that divides C, got 4 and 6"),
    ({"mean": None, "rstd": torch.ones(3, 4, 0)}, "rstd [n, S, G] must have a G that divides C, got 0 and 6"),
]
INTS = {"x": torch.ones(3, 4, 6).int(), "g": torch.ones(3, 4, 6).int(), "mean": None, "rstd": torch.ones(3, 4, 2).int()}
TYPES = [({name: [[1.0]]}, f"{name} must be a tensor, got list") for name in NAMES]
SIZES = [  # n, S, channels a group, groups, what is fixed, mean, wide statistics
    (5, 35, 8, 4, "S"),  # group norm
    (5, 37, 45, 1),  # layer norm
    (5, 37, 45, 1, "", False, False),  # RMS norm
    (6, 49, 1, 12, "S"),  # instance norm
    (6, 16, 1, 12, "nS"),  # batch norm in eval
    (37, 1, 70, 1),  # a row an example
    (9, 1, 6, 5, "S"),
    (3, 5, 9, 3),  # groups and positions
    (2, 20, 260, 1),
    (1, 1, 1, 1),
    (4, 3, 2, 1, "n"),
    (0, 3, 4, 1),
    (3, 0, 4, 1),
    (3, 4, 0, 1),
]


CASE = OpCase(
    op="norm_dot",
    names=NAMES,
    make=make,
    sizes=[
        *SIZES[:2],
        (5, 37, 45, 1, "", False, False, True, False),
        (7, 20, 3, 4, "S", True, True, True, False),
        (7, 20, 3, 4, "S", True, False, False, True),
        *SIZES[3:],
    ],
    large=[
        (64, 1024, 64, 1),
        (16, 3136, 8, 32, "S"),
        (4096, 1, 1000, 1),
        (8, 50, 48, 16, "S"),
        (5, 300, 16, 1),
        (2, 1024, 4, 6),
    ],
    fuzz=(*FUZZ, st.just(True), flag),
    terms=lambda n, S, width, G, *options: 4 * S * width * G,  # each is a product of four factors
    small=(3, 4, 3, 2),
    rules=[
        *RULES,
        ({**INTS, "V_gamma": None, "V_beta": torch.ones(6).int()}, "the dtype must be float32, float64, bfloat16 or"),
        ({"V_beta": torch.ones(5)}, "x [n, S, C] and V_beta [C] must have the same C, got 6 and 5"),
        ({"V_gamma": None, "V_beta": None}, "V_gamma or V_beta must be given, got None for both"),
    ],
    types=TYPES,
)
