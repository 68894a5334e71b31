from collections.abc import Iterator

import torch
from hypothesis import strategies as st

from tests import convolution_sizes as sizes
from tests.builds import KINDS, Build, build, tensor_rows, units
from tests.op_cases import OpCase


def make(draw, m, n, *layer):
    x, g, V, options = sizes.shapes(n + m, *layer)
    kind = draw.sums if n == 3 else draw.normal
    return draw.normal(*x), draw.normal(*g), n, None if m else kind(*V), *options


def terms(m, n, *layer):
    return sizes.terms(n, *layer) * max(m, 1)


def builds() -> Iterator[Build]:
    """Each example or their sum; a tile within one tap, and one of several."""
    from fastrw.kernels.conv_instance import CONFIGS, _conv_instance_kernel  # imports Triton

    for family, configs in CONFIGS.items():
        for dtype, other, precision in KINDS[family]:
            if dtype != other:
                continue
            unit = units(dtype, family != "narrow")
            data = {"x_ptr": dtype, "g_ptr": dtype, "G_ptr": "fp32"}
            for config in configs[:1] if dtype == "fp16" else configs:
                for block_c, sums in ((config.BLOCK_N, False), (4 if unit == 1 else 16, False), (16, True)):
                    if dtype == "fp16" and block_c != 16:
                        continue
                    one = {"V_ptr": "fp32", "partial_ptr": "fp32"}
                    constants = {"UNIT": unit, "SUM": sums, "BLOCK_C": block_c, "PRECISION": precision}
                    yield build(
                        _conv_instance_kernel,
                        config,
                        data if sums else data | one,
                        constants | dict.fromkeys(one) if sums else constants,
                        aligned=unit > 1,
                        tensor_rows=tensor_rows(config.BLOCK_O, dtype, precision),
                        load_bytes=4 if family == "tf32" else 16,  # as in weighted_outer
                        about={
                            "family": family,
                            "dtype": dtype,
                            "precision": precision,
                            "block_c": block_c,
                            "sums": sums,
                        },
                    )


CASE = OpCase(
    op="conv_instance",
    names=("x", "g", "n", "V", "kernel", "stride", "padding", "dilation", "groups"),
    make=make,
    sizes=[(m, *s) for m in (2, 0) for s in (sizes.SIZES if m else sizes.SIZES[3:6])],
    large=[(10, *s) for s in sizes.LARGE],
    fuzz=(st.integers(0, 2), st.integers(0, 3), *sizes.FUZZ),
    terms=terms,
    small=(0, *sizes.SMALL),
    rules=[
        *sizes.geometry(n="N"),
        *sizes.weight(),
        ({"n": 3}, "n must be at most the examples of x, got 3 and 2"),
        ({"n": -1}, "n must be 0 or more, got -1"),
        ({"kernel": [2]}, "kernel must be 2 integers of 1 or more, got [2]"),
        ({"V": torch.ones(4, 1, 3, 2)}, "V must have the sizes of kernel, got shape (4, 1, 3, 2)"),
    ],
    types=[*sizes.TYPES, ({"n": 2.0}, "n must be an integer, got float")],
    builds=builds,
)
