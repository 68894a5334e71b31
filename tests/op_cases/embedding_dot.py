import torch
from hypothesis import strategies as st

from tests.op_cases import OpCase

NAMES = ("idx", "g", "V", "padding_idx")


def make(draw, r, q, v, padding_idx=-1, wide=False, narrow_idx=False):
    idx = draw.index(v, r)
    V = draw.sums(v, q) if wide else draw.normal(v, q)
    return idx.int() if narrow_idx else idx, draw.normal(r, q), V, padding_idx


CASE = OpCase(
    op="embedding_dot",
    names=NAMES,
    make=make,
    sizes=[  # r, q, v
        (37, 45, 10),
        (37, 45, 10, 3, True),
        (70, 64, 33, 0, False, True),
        (1, 1, 1),
        (5, 1, 3, 1),
        (130, 129, 7, -1, True),
        (2, 600, 1000),
        (0, 4, 0),
        (0, 4, 3),
        (3, 0, 4),
    ],
    large=[(65537, 129, 1000, 3), (4096, 768, 50257), (1000, 1000, 30000, -1, True)],
    fuzz=(
        st.integers(0, 40),
        st.integers(0, 150),
        st.integers(1, 40),
        st.integers(-1, 3),
        st.booleans(),
        st.booleans(),
    ),
    terms=lambda r, q, *options: q,
    small=(4, 5, 3, 1),
    rules=[
        ({"idx": torch.ones(4, 1).long()}, "idx must be [r], got shape (4, 1)"),
        ({"g": torch.ones(4)}, "g must be [r, q], got shape (4,)"),
        ({"idx": torch.ones(4)}, "idx must be int64 or int32, got torch.float32"),
        ({"idx": torch.ones(3).long()}, "idx [r] and g [r, q] must have the same r, got 3 and 4"),
        ({"V": torch.ones(3, 4)}, "g [r, q] and V [v, q] must have the same q, got 5 and 4"),
        ({"V": torch.ones(3, 5).double()}, "V must have the dtype of g, got"),
        ({"V": torch.ones(3, 5, device="meta")}, "V must be on the device of g, got"),
        ({"g": torch.ones(4, 5).int(), "V": torch.ones(3, 5).int()}, "the dtype must be float32, float64, bfloat16 or"),
    ],
    types=[
        *(({name: [[1.0]]}, f"{name} must be a tensor, got list") for name in NAMES[:3]),
        *(
            ({"padding_idx": x}, f"padding_idx must be an integer, got {type(x).__name__}")
            for x in ("1", None, True, 1.0)
        ),
    ],
)
