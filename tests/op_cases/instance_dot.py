import torch
from hypothesis import strategies as st

from tests.op_cases import OpCase

NAMES = ("a", "g", "V", "v_b", "keep")
small = st.integers(0, 10)


def make(draw, n, t, p, q, keep=True, bias=True, wide=False):
    kind = draw.sums if wide else draw.normal
    return draw.normal(n, t, p), draw.normal(n, t, q), kind(q, p), kind(q) if bias else None, keep


CASE = OpCase(
    op="instance_dot",
    names=NAMES,
    make=make,
    sizes=[  # n, t, p, q
        (5, 7, 45, 19),
        (5, 7, 45, 19, False),
        (3, 1, 65, 33, True, False),
        (9, 1, 65, 33, False, False),
        (3, 16, 64, 48, True, True, True),
        (3, 16, 64, 48, False, True, True),
        (1, 1, 1, 1),
        (2, 300, 33, 13),
        (2, 3, 520, 200),
        (0, 3, 4, 5),
        (3, 0, 4, 5),
        (3, 0, 4, 5, False),
        (3, 2, 0, 5),
        (3, 2, 4, 0),
    ],
    large=[(64, 64, 128, 512), (100, 1, 1024, 1024), (1000, 196, 16, 32)],
    fuzz=(small, small, st.integers(0, 70), st.integers(0, 40), st.booleans(), st.booleans(), st.booleans()),
    terms=lambda n, t, p, q, *_: t * (p * q + q),
    small=(2, 3, 3, 4),
    rules=[
        ({"a": torch.ones(2, 3)}, "a must be [n, t, p], got shape (2, 3)"),
        ({"g": torch.ones(3, 3, 4)}, "a [n, t, p] and g [n, t, q] must have the same n, got 2 and 3"),
        ({"g": torch.ones(2, 2, 4)}, "a [n, t, p] and g [n, t, q] must have the same t, got 3 and 2"),
        ({"V": torch.ones(4, 4)}, "a [n, t, p] and V [q, p] must have the same p, got 3 and 4"),
        ({"V": torch.ones(5, 3)}, "g [n, t, q] and V [q, p] must have the same q, got 4 and 5"),
        ({"v_b": torch.ones(5)}, "g [n, t, q] and v_b [q] must have the same q, got 4 and 5"),
        ({"g": torch.ones(2, 3, 4).double()}, "g must have the dtype of a, got"),
        ({"v_b": torch.ones(4).half()}, "v_b must have the dtype of a, got"),
        ({"V": torch.ones(4, 3, device="meta")}, "V must be on the device of a, got"),
    ],
    types=[
        *(({name: [[1.0]]}, f"{name} must be a tensor, got list") for name in NAMES[:4]),
        ({"keep": 1}, "keep must be a bool, got int"),
    ],
)
