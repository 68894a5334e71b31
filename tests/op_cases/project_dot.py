import torch
from hypothesis import strategies as st

from tests.op_cases import OpCase

NAMES = ("a", "g", "V", "v_b")
small = st.integers(0, 40)


def make(draw, r, p, q, bias=True, wide=False):
    kind = draw.sums if wide else draw.normal
    return draw.normal(r, p), draw.normal(r, q), kind(q, p), kind(q) if bias else None


CASE = OpCase(
    op="project_dot",
    names=NAMES,
    make=make,
    sizes=[  # r, p, q
        (37, 45, 19),
        (101, 65, 33, False),
        (101, 64, 48, True, True),
        (1, 1, 1),
        (3, 700, 513),
        (13, 33, 1100),
        (0, 3, 4),
        (3, 0, 4),
        (3, 4, 0),
    ],
    large=[(4096, 768, 3072), (65537, 64, 48), (100, 1024, 1024), (65537, 64, 48, True, True), (20000, 64, 128)],
    fuzz=(small, st.integers(0, 150), st.integers(0, 150), st.booleans(), st.booleans()),
    terms=lambda r, p, q, *_: p * q + q,
    small=(4, 3, 5),
    rules=[
        ({"a": torch.ones(4)}, "a must be [r, p], got shape (4,)"),
        ({"g": torch.ones(3, 5)}, "a [r, p] and g [r, q] must have the same r, got 4 and 3"),
        ({"V": torch.ones(5, 4)}, "a [r, p] and V [q, p] must have the same p, got 3 and 4"),
        ({"V": torch.ones(4, 3)}, "g [r, q] and V [q, p] must have the same q, got 5 and 4"),
        ({"v_b": torch.ones(4)}, "g [r, q] and v_b [q] must have the same q, got 5 and 4"),
        ({"v_b": torch.ones(5, 1)}, "v_b must be [q], got shape (5, 1)"),
        ({"g": torch.ones(4, 5).double()}, "g must have the dtype of a, got"),
        ({"V": torch.ones(5, 3).half()}, "V must have the dtype of a, got"),
        ({"V": torch.ones(5, 3, device="meta")}, "V must be on the device of a, got"),
        (
            {x: torch.ones(2, 2).int() for x in NAMES[:3]} | {"v_b": None},
            "the dtype must be float32, float64, bfloat16",
        ),
    ],
    types=[({name: [[1.0]]}, f"{name} must be a tensor, got list") for name in NAMES],
)
