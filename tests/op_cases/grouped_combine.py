import torch
from hypothesis import strategies as st

from fastrw.ops.grouped_combine import nested
from tests.op_cases import OpCase

few = st.integers(0, 9)


def make(draw, n, *shapes):
    """n and the further dimensions of each use, as the registry of backends takes them."""
    return *(draw.normal(n, *shape) for shape in shapes), draw.weights(n)


CASE = OpCase(
    op="grouped_combine",
    names=("G[0]", "G[1]", "w"),
    make=make,
    nest=nested,
    sizes=[
        (5, (7, 19), (4,)),
        (3, (16, 3, 3, 16)),
        (9, (), (1,), (2, 0)),
        (2500, (3,), (1, 2)),
        (4, *[(7, 5)] * 46),
        (0, (3, 4), (2,)),
        (4, (0,)),
    ],
    fuzz=(few, st.lists(few, max_size=3).map(tuple), st.just((3, 2))),
    terms=lambda n, *shapes: n,
    small=(3, (2, 4), (5,)),
    rules=[
        ({"G[0]": torch.ones(())}, "G[0] must be [n, ...], got shape ()"),
        ({"w": torch.ones(3, 1)}, "w must be [n], got shape (3, 1)"),
        ({"w": torch.ones(4)}, "G[0] [n, ...] and w [n] must have the same n, got 3 and 4"),
        ({"G[1]": torch.ones(2, 5)}, "G[1] [n, ...] and w [n] must have the same n, got 2 and 3"),
        ({"w": torch.ones(3).half()}, "w must have the dtype of G[0], got"),
        ({"G[1]": torch.ones(3, 5).double(), "w": torch.ones(3)}, "w must have the dtype of G[1], got"),
        ({"w": torch.ones(3, device="meta")}, "w must be on the device of G[0], got"),
    ],
    types=[({"G[1]": [[1.0]]}, "G[1] must be a tensor, got list"), ({"w": [1.0]}, "w must be a tensor, got list")],
)
