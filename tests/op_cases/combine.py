from collections.abc import Iterator

import torch
from hypothesis import strategies as st

from tests.builds import BYTES, Build, build, units
from tests.op_cases import OpCase

small = st.integers(0, 12)


def make(draw, n, *shape):
    return draw.normal(n, *shape), draw.weights(n)


def builds() -> Iterator[Build]:
    from fastrw.kernels.combine import CONFIG, _combine_kernel  # imports Triton

    for dtype in BYTES:
        for unit in (1, units(dtype, True)):
            pointers = {"G_ptr": dtype, "w_ptr": "fp32", "partial_ptr": "fp32"}
            about = {"family": "only", "dtype": dtype, "precision": "ieee", "units": [unit]}
            yield build(_combine_kernel, CONFIG, pointers, {"UNIT": unit}, aligned=unit > 1, about=about)


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
    builds=builds,
)
