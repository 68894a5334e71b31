import torch
from hypothesis import strategies as st

from tests.op_cases import OpCase

NAMES = ("a", "g", "w")


def make(draw, r, p, q, weighted=True, narrow=False):
    w = draw.weights(r)
    return draw.normal(r, p), draw.normal(r, q), (w.to(draw.dtype) if narrow else w) if weighted else None


CASE = OpCase(
    op="weighted_outer",
    names=NAMES,
    make=make,
    sizes=[  # r, p, q
        (37, 45, 19),
        (300, 65, 33, False),
        (300, 64, 48, True, True),
        (1, 1, 1),
        (3, 1030, 400),
        (2500, 10, 5),
        (0, 3, 4),
        (3, 0, 4),
        (3, 4, 0),
    ],
    large=[(4096, 768, 3072), (65537, 64, 48), (100, 1024, 1024), (1000, 256, 320, False)],
    fuzz=(st.integers(0, 150), st.integers(0, 70), st.integers(0, 70), st.booleans(), st.booleans()),
    terms=lambda r, p, q, *_: r,
    small=(4, 3, 5),
    rules=[
        ({"a": torch.ones(4)}, "a must be [r, p], got shape (4,)"),
        ({"g": torch.ones(3, 5)}, "a [r, p] and g [r, q] must have the same r, got 4 and 3"),
        ({"w": torch.ones(3)}, "a [r, p] and w [r] must have the same r, got 4 and 3"),
        ({"w": torch.ones(4, 1)}, "w must be [r], got shape (4, 1)"),
        ({"g": torch.ones(4, 5).double()}, "g must have the dtype of a, got"),
        ({"w": torch.ones(4).half()}, "w must have the dtype of a, got"),
        ({"g": torch.ones(4, 5, device="meta")}, "g must be on the device of a, got"),
        ({x: torch.ones(2, 2).int() for x in NAMES[:2]} | {"w": None}, "the dtype must be float32, float64, bfloat16"),
    ],
    types=[({name: [[1.0]]}, f"{name} must be a tensor, got list") for name in NAMES],
)
