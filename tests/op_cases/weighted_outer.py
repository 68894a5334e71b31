from collections.abc import Iterator

import torch
from hypothesis import strategies as st

from tests.builds import KINDS, Build, build, tensor_rows, units
from tests.op_cases import OpCase

NAMES = ("a", "g", "w")


def make(draw, r, p, q, weighted=True, narrow=False):
    w = draw.weights(r)
    return draw.normal(r, p), draw.normal(r, q), (w.to(draw.dtype) if narrow else w) if weighted else None


def builds() -> Iterator[Build]:
    from fastrw.kernels.weighted_outer import (
        CONFIGS,
        LIST_BLOCK,
        _list_kernel,
        _weighted_outer_kernel,
    )  # imports Triton

    about = {"family": "list", "dtype": "fp32", "precision": "ieee"}
    pointers = {"w_ptr": "fp32", "listed_ptr": "i32", "weights_ptr": "fp32", "count_ptr": "i32"}
    yield build(_list_kernel, (8, 3), pointers, {"BLOCK": LIST_BLOCK}, aligned=True, about=about, load_bytes=4)
    for family, configs in CONFIGS.items():
        for dtype, other, precision in KINDS[family]:
            unit = units(dtype, family != "narrow")
            rows = {"a_ptr": dtype, "g_ptr": dtype, "W_ptr": "fp32", "b_ptr": "fp32"}
            for config in configs:
                for weighted in {dtype != other, dtype == "fp32"}:
                    if dtype != "fp32" and weighted == (dtype == other):
                        continue
                    lists = pointers if weighted else {}
                    constants = {"UNIT_P": unit, "UNIT_Q": unit, "WEIGHTED": weighted, "PRECISION": precision}
                    if not weighted:
                        constants |= dict.fromkeys(("listed_ptr", "weights_ptr", "count_ptr"))
                    yield build(
                        _weighted_outer_kernel,
                        config,
                        rows | lists,
                        constants,
                        aligned=unit > 1,
                        load_bytes=4
                        if family == "tf32"
                        else 16,  # float32 along rows: turned on the way to tensor cores
                        tensor_rows=tensor_rows(config.BLOCK_P, dtype, precision),
                        about={"family": family, "dtype": dtype, "precision": precision, "weighted": weighted},
                    )


CASE = OpCase(
    op="weighted_outer",
    names=NAMES,
    make=make,
    sizes=[  # r, p, q
        (37, 45, 19),
        (300, 65, 33, False),
        (300, 64, 48, True, True),
        (1, 1, 1),
        (3, 1030, 400),
        (2500, 10, 5),
        (0, 3, 4),
        (3, 0, 4),
        (3, 4, 0),
    ],
    large=[(4096, 768, 3072), (65537, 64, 48), (100, 1024, 1024)],
    fuzz=(st.integers(0, 150), st.integers(0, 70), st.integers(0, 70), st.booleans(), st.booleans()),
    terms=lambda r, p, q, *_: r,
    small=(4, 3, 5),
    rules=[
        ({"a": torch.ones(4)}, "a must be [r, p], got shape (4,)"),
        ({"g": torch.ones(3, 5)}, "a [r, p] and g [r, q] must have the same r, got 4 and 3"),
        ({"w": torch.ones(3)}, "a [r, p] and w [r] must have the same r, got 4 and 3"),
        ({"w": torch.ones(4, 1)}, "w must be [r], got shape (4, 1)"),
        ({"g": torch.ones(4, 5).double()}, "g must have the dtype of a, got"),
        ({"w": torch.ones(4).half()}, "w must have the dtype of a, got"),
        ({"g": torch.ones(4, 5, device="meta")}, "g must be on the device of a, got"),
        ({x: torch.ones(2, 2).int() for x in NAMES[:2]} | {"w": None}, "the dtype must be float32, float64, bfloat16"),
    ],
    types=[({name: [[1.0]]}, f"{name} must be a tensor, got list") for name in NAMES],
    builds=builds,
)
