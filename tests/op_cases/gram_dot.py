import torch
from hypothesis import strategies as st

from tests.op_cases import OpCase

NAMES = ("a", "g", "a_val", "g_val", "bias")
small = st.integers(0, 40)


def make(draw, r, k, p, q, bias=1.0):
    return draw.normal(r, p), draw.normal(r, q), draw.normal(k, p), draw.normal(k, q), bias


CASE = OpCase(
    op="gram_dot",
    names=NAMES,
    make=make,
    sizes=[  # r, k, p, q
        (37, 19, 45, 10),
        (70, 33, 64, 48),
        (70, 33, 64, 48, 0.0),
        (70, 17, 100, 96),  # few validation rows: no V is formed
        (37, 5, 45, 33, 0.0),
        (1, 1, 1, 1),
        (1, 40, 129, 77),
        (130, 1, 16, 8),
        (0, 3, 4, 4),
        (3, 0, 4, 4),
        (3, 4, 0, 4),
        (3, 4, 4, 0),
    ],
    large=[
        (1000, 300, 1000, 500),
        (4096, 512, 768, 3072),
        (128, 32, 1024, 1024),
        (65537, 17, 64, 48),
        (5000, 128, 64, 48),
    ],
    fuzz=(small, small, st.integers(0, 150), small),
    terms=lambda r, k, p, q, bias=1.0: k * (p + q),
    small=(4, 2, 3, 5, 0.5),
    rules=[
        ({"a": torch.ones(4)}, "a must be [r, p], got shape (4,)"),
        ({"g_val": torch.ones(2, 5, 1)}, "g_val must be [k, q], got shape (2, 5, 1)"),
        ({"g": torch.ones(3, 5)}, "a [r, p] and g [r, q] must have the same r, got 4 and 3"),
        ({"g_val": torch.ones(3, 5)}, "a_val [k, p] and g_val [k, q] must have the same k, got 2 and 3"),
        ({"a_val": torch.ones(2, 4)}, "a [r, p] and a_val [k, p] must have the same p, got 3 and 4"),
        ({"g_val": torch.ones(2, 4)}, "g [r, q] and g_val [k, q] must have the same q, got 5 and 4"),
        ({"g": torch.ones(4, 5).double()}, "g must have the dtype of a, got"),
        ({"a_val": torch.ones(2, 3, device="meta")}, "a_val must be on the device of a, got"),
        ({x: torch.ones(2, 2).int() for x in NAMES[:4]}, "the dtype must be float32, float64, bfloat16 or float16"),
    ],
    types=[
        *(({name: [[1.0]]}, f"{name} must be a tensor, got list") for name in NAMES[:4]),
        *(({"bias": x}, f"bias must be a number, got {type(x).__name__}") for x in ("1", None, True, torch.ones(()))),
    ],
)


def matrices(*sizes, dtype=torch.float32, layout="plain", seed=0, device="cpu"):
    """a, g, a_val, g_val alone."""
    return CASE.args(sizes, dtype, layout, seed, device)[:4]
