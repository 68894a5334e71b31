import torch
from hypothesis import strategies as st

from tests.op_cases import OpCase

NAMES = ("x", "t", "mean", "rstd", "weight", "d_weight", "d_bias", "residual", "output", "sums")
LIKE_X, CHANNELS = ("t", "residual", "output"), ("mean", "rstd", "weight", "d_weight", "d_bias")


def make(draw, *shape, without=""):
    """`without`: the first letters of what is left out, capital for the tangents of weight and bias."""
    C = shape[1]
    x, t, residual, output = (draw.normal(*shape) for _ in range(4))
    mean, weight, d_weight, d_bias = (draw.sums(C) for _ in range(4))
    rstd, sums = draw.sums(C).abs() + 0.5, draw.sums(2, C)
    given = {"t": t, "w": weight, "W": d_weight, "B": d_bias, "r": residual, "o": output, "s": sums}
    t, *rest = (None if letter in without else x for letter, x in given.items())
    return x, t, mean, rstd, *rest


CASE = OpCase(
    op="batch_norm_tangent",
    names=NAMES,
    make=lambda draw, n, C, positions=(), without="": make(draw, n, C, *positions, without=without),
    sizes=[  # n, C, positions, what is left out
        (5, 6, (7, 5), "s"),
        (9, 33, (2, 3)),
        (300, 7, (), "s"),
        (3, 40, (50,), "so"),
        (2, 3, (2, 3, 4), "wsr"),
        (6, 16, (8, 8), "ro"),
        (6, 16, (8, 8), "tWso"),
        (2, 4, (4, 4), "WB"),
        (1, 1, (1, 1)),
        (0, 3, (2, 2), "s"),
        (3, 0, (2, 2), "s"),
        (3, 4, (0, 2), "s"),
    ],
    large=[(128, 64, (56, 56), "s"), (256, 100, (13, 13), "s"), (4096, 1000, (), "s"), (2, 2048, (7, 7))],
    fuzz=(
        st.integers(0, 20),
        st.integers(0, 40),
        st.lists(st.integers(0, 7), max_size=3).map(tuple),
        st.lists(st.sampled_from("twWBros"), max_size=3).map("".join),
    ),
    terms=lambda n, C, positions=(), without="": 16 + 4 * n * torch.Size(positions).numel(),
    small=(3, 2, (2,), "s"),
    rules=[
        ({"x": torch.ones(3)}, "x must be [n, C, ...], got shape (3,)"),
        ({"t": torch.ones(3, 2)}, "t must have the shape of x, got (3, 2) and (3, 2, 2)"),
        ({"residual": torch.ones(3, 2, 3)}, "residual must have the shape of x, got (3, 2, 3) and (3, 2, 2)"),
        ({"output": torch.ones(4, 2, 2)}, "x [n, C, ...] and output [n, C, ...] must have the same n, got 3 and 4"),
        ({"mean": torch.ones(3)}, "x [n, C, ...] and mean [C] must have the same C, got 2 and 3"),
        ({"rstd": torch.ones(1, 2)}, "rstd must be [C], got shape (1, 2)"),
        ({"sums": torch.ones(3, 2)}, "sums must be [2, C], got shape (3, 2)"),
        ({"t": torch.ones(3, 2, 2).half()}, "t must have the dtype of x, got"),
        ({"weight": torch.ones(2).half()}, "weight must have the dtype of x, got"),
        ({"d_bias": torch.ones(2, device="meta")}, "d_bias must be on the device of x, got"),
        (
            {x: torch.ones(3, 2, 2).int() for x in ("x", *LIKE_X)} | {x: torch.ones(2).int() for x in CHANNELS},
            "the dtype must be float32, float64, bfloat16 or float16",
        ),
    ],
    types=[({name: [[1.0]]}, f"{name} must be a tensor, got list") for name in NAMES],
)
