import torch
from hypothesis import strategies as st

from tests.op_cases import OpCase

CASE = OpCase(
    op="relu_tangent",
    names=("t", "output"),
    make=lambda draw, *shape: (draw.normal(*shape), draw.normal(*shape)),
    sizes=[(5, 6, 7), (37, 19), (1,), (300,), (2, 3, 4, 5), (3, 16, 8, 8), (0,), (3, 0, 2)],
    large=[(128, 64, 56, 56), (1000, 1001)],
    fuzz=(st.integers(0, 20), st.integers(0, 40), st.integers(0, 20)),
    terms=lambda *shape: 1,
    small=(3, 2),
    rules=[
        ({"t": torch.ones(3, 3)}, "output must have the shape of t, got (3, 2) and (3, 3)"),
        ({"output": torch.ones(3, 2).double()}, "output must have the dtype of t, got"),
        ({"output": torch.ones(3, 2, device="meta")}, "output must be on the device of t, got"),
        ({x: torch.ones(3, 2).int() for x in ("t", "output")}, "the dtype must be float32, float64, bfloat16 or"),
    ],
    types=[({name: [[1.0]]}, f"{name} must be a tensor, got list") for name in ("t", "output")],
)
