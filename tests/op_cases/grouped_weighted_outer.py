import torch
from hypothesis import strategies as st

from fastrw.ops.grouped_weighted_outer import nested
from tests.op_cases import OpCase

NAMES = ("uses", "a[0]", "a[1]", "g[0]", "g[1]", "w")
few = st.integers(0, 9)


def make(draw, n, *uses):
    """n and the uses (rows of an example, p, q), as the registry of backends takes them."""
    a = [draw.normal(n * t, p) for t, p, _ in uses]
    return len(uses), *a, *(draw.normal(n * t, q) for t, _, q in uses), draw.weights(n)


CASE = OpCase(
    op="grouped_weighted_outer",
    names=NAMES,
    make=make,
    nest=nested,
    sizes=[
        (7, (1, 45, 10), (3, 64, 48)),
        (37, (2, 16, 8)),
        (1, (1, 1, 1)),
        (5, (130, 16, 8), (1, 129, 77), (0, 4, 4)),
        (2, *[(1, 3, 4)] * 46),
        (3, (2, 0, 4), (1, 4, 0)),
        (0, (1, 4, 4)),
        (700, (3, 5, 4)),
    ],
    fuzz=(few, st.tuples(few, st.integers(0, 70), few), st.just((1, 4, 3))),
    terms=lambda n, *uses: n * max(t for t, *_ in uses),
    small=(2, (1, 5, 4), (2, 3, 6)),
    rules=[
        ({"a[1]": torch.ones(4)}, "a[1] must be [r, p], got shape (4,)"),
        ({"g[0]": torch.ones(4, 4)}, "a[0] [r, p] and g[0] [r, q] must have the same r, got 2 and 4"),
        ({"g[0]": torch.ones(2, 4).double()}, "g[0] must have the dtype of a[0], got"),
        ({"g[1]": torch.ones(4, 6, device="meta")}, "g[1] must be on the device of a[1], got"),
        ({"a[0]": torch.ones(2, 2).int(), "g[0]": torch.ones(2, 2).int(), "w": torch.ones(2).int()}, "the dtype must"),
        ({"w": torch.ones(2, 1)}, "w must be [n], got shape (2, 1)"),
        ({"w": torch.ones(4)}, "the rows of a[0] must be a multiple of n, got 2 and 4"),
        ({"w": torch.ones(0)}, "the rows of a[0] must be a multiple of n, got 2 and 0"),
    ],
    types=[({"a[1]": [[1.0]]}, "a[1] must be a tensor, got list"), ({"w": [1.0]}, "w must be a tensor, got list")],
)
