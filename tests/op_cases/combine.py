import torch
from hypothesis import strategies as st

from tests.op_cases import OpCase

small = st.integers(0, 12)


def make(draw, n, *shape):
    return draw.normal(n, *shape), draw.weights(n)


CASE = OpCase(
    op="combine",
    names=("G", "w"),
    make=make,
    sizes=[(5, 7, 19), (3, 16, 3, 3, 16), (9,), (1, 1), (2500, 3), (4, 70, 65), (6, 2, 0), (0, 3, 4)],
    large=[(100, 64, 64, 3, 3), (5000, 1000)],
    fuzz=(small, small, small, st.integers(0, 40)),
    terms=lambda n, *shape: n,
    small=(3, 2, 4),
    rules=[
        ({"G": torch.ones(())}, "G must be [n, ...], got shape ()"),
        ({"w": torch.ones(3, 1)}, "w must be [n], got shape (3, 1)"),
        ({"w": torch.ones(4)}, "G [n, ...] and w [n] must have the same n, got 3 and 4"),
        ({"w": torch.ones(3).half()}, "w must have the dtype of G, got"),
        ({"w": torch.ones(3, device="meta")}, "w must be on the device of G, got"),
    ],
    types=[({"G": [[1.0]]}, "G must be a tensor, got list"), ({"w": [1.0]}, "w must be a tensor, got list")],
)
