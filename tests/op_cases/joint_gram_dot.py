import torch
from hypothesis import strategies as st

from fastrw.ops.joint_gram_dot import nested
from tests.op_cases import OpCase

NAMES = ("n", "m", "bias", "a[0]", "a[1]", "g[0]", "g[1]")
few = st.integers(0, 9)
A, B = (1, 5, 4, 1.0), (2, 3, 6, 0.0)


def make(draw, n, m, *uses):
    """n, m and the uses (rows of an example, p, q, bias), as the registry of backends takes them."""
    a = [draw.normal((n + m) * t, p) for t, p, _, _ in uses]
    return n, m, tuple(use[3] for use in uses), *a, *(draw.normal((n + m) * t, q) for t, _, q, _ in uses)


CASE = OpCase(
    op="joint_gram_dot",
    names=NAMES,
    make=make,
    nest=nested,
    sizes=[
        (7, 19, (1, 45, 10, 1.0), (3, 64, 48, 0.0)),
        (37, 3, (2, 16, 8, 1.0)),
        (1, 1, (1, 1, 1, 0.5)),
        (5, 2, (130, 16, 8, 0.0), (1, 129, 77, 1.0), (0, 4, 4, 1.0)),
        (2, 1, *[(1, 3, 4, 1.0)] * 46),
        (3, 0, (2, 4, 4, 1.0)),
        (3, 2, (1, 0, 4, 1.0), (1, 4, 0, 1.0)),
        (0, 3, (1, 4, 4, 1.0)),
        (0, 0, (1, 4, 4, 1.0)),
    ],
    fuzz=(few, few, st.tuples(few, st.integers(0, 70), few, st.just(0.5)), st.just(A)),
    terms=lambda n, m, *uses: sum(t * t * m * (p + q) for t, p, q, _ in uses),
    small=(2, 3, A, B),
    rules=[
        ({"a[1]": torch.ones(4)}, "a[1] must be [r, p], got shape (4,)"),
        ({"g[0]": torch.ones(4, 4)}, "a[0] [r, p] and g[0] [r, q] must have the same r, got 5 and 4"),
        ({"g[0]": torch.ones(5, 4).double()}, "g[0] must have the dtype of a[0], got"),
        ({"g[0]": torch.ones(5, 4, device="meta")}, "g[0] must be on the device of a[0], got"),
        ({f"{x}[1]": torch.ones(10, 4).double() for x in "ag"}, "a[1] must have the dtype of a[0], got"),
        ({f"{x}[0]": torch.ones(5, 2).int() for x in "ag"}, "the dtype must be float32, float64, bfloat16 or"),
        ({"n": 3}, "the rows of a[0] must be a multiple of n + m, got 5 and 6"),
        ({"n": 0, "m": 0}, "the rows of a[0] must be a multiple of n + m, got 5 and 0"),
        ({"n": -1}, "n must be 0 or more, got -1"),
        ({"m": -1}, "m must be 0 or more, got -1"),
    ],
    types=[
        ({"a[1]": [[1.0]]}, "a[1] must be a tensor, got list"),
        ({"bias": (1.0, True)}, "bias[1] must be a number, got bool"),
        ({"n": 2.0}, "n must be an integer, got float"),
        ({"m": True}, "m must be an integer, got bool"),
    ],
)
