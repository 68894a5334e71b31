import torch
from hypothesis import strategies as st

from fastrw.ops.grouped_gram_dot import nested
from tests.op_cases import OpCase

TWO = ("a", "g", "a_val", "g_val")
NAMES = ("n", "bias", *(f"{name}[{i}]" for name in TWO for i in range(2)))
few = st.integers(0, 9)
A, B = (1, 3, 5, 4, 1.0), (2, 2, 3, 6, 0.0)


def make(draw, n, *uses):
    """n and the uses (rows of an example, k, p, q, bias), as the registry of backends takes them."""
    sizes = [((n * t, p), (n * t, q), (k, p), (k, q)) for t, k, p, q, _ in uses]
    return n, tuple(use[4] for use in uses), *(draw.normal(*use[i]) for i in range(4) for use in sizes)


CASE = OpCase(
    op="grouped_gram_dot",
    names=NAMES,
    make=make,
    nest=nested,
    sizes=[
        (7, (1, 19, 45, 10, 1.0), (3, 5, 64, 48, 0.0)),
        (37, (2, 33, 16, 8, 1.0)),
        (1, (1, 1, 1, 1, 0.5)),
        (5, (130, 1, 16, 8, 0.0), (1, 40, 129, 77, 1.0), (0, 3, 4, 4, 1.0)),
        (2, *[(1, 2, 3, 4, 1.0)] * 46),
        (3, (2, 0, 4, 4, 1.0), (1, 4, 0, 4, 1.0)),
        (4, (0, 3, 4, 4, 1.0)),
        (0, (1, 3, 4, 4, 1.0)),
        (3, (2, 4, 4, 0, 1.0)),
    ],
    large=[(128, (1, 32, 784, 1024, 1.0), *[(1, 32, 1024, 1024, 1.0)] * 2), (64, *[(64, 8, 128, 512, 0.0)] * 48)],
    fuzz=(few, st.tuples(few, few, st.integers(0, 70), few, st.just(0.5)), st.just(A)),
    terms=lambda n, *uses: sum(t * k * (p + q) for t, k, p, q, _ in uses),
    small=(2, A, B),
    rules=[
        ({"a[1]": torch.ones(4)}, "a[1] must be [r, p], got shape (4,)"),
        ({"g[0]": torch.ones(4, 4)}, "a[0] [r, p] and g[0] [r, q] must have the same r, got 2 and 4"),
        ({"a_val[1]": torch.ones(2, 4)}, "a[1] [r, p] and a_val[1] [k, p] must have the same p, got 3 and 4"),
        ({"g[0]": torch.ones(2, 4).double()}, "g[0] must have the dtype of a[0], got"),
        ({"g_val[0]": torch.ones(3, 4, device="meta")}, "g_val[0] must be on the device of a[0], got"),
        ({f"{name}[1]": torch.ones(4, 4).double() for name in TWO}, "a[1] must have the dtype of a[0], got"),
        ({f"{name}[0]": torch.ones(2, 2).int() for name in TWO}, "the dtype must be float32, float64, bfloat16 or"),
        ({"n": 3}, "the rows of a[0] must be a multiple of n, got 2 and 3"),
        ({"n": 0}, "the rows of a[0] must be a multiple of n, got 2 and 0"),
        ({"n": -1}, "n must be 0 or more, got -1"),
    ],
    types=[
        ({"a[1]": [[1.0]]}, "a[1] must be a tensor, got list"),
        ({"bias": (1.0, True)}, "bias[1] must be a number, got bool"),
        ({"n": 2.0}, "n must be an integer, got float"),
        ({"n": True}, "n must be an integer, got bool"),
    ],
)
