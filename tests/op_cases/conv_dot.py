from collections.abc import Iterator

import torch
from hypothesis import strategies as st

from tests.builds import KINDS, Build, build, tensor_rows, units
from tests.convolution_sizes import FUZZ, LARGE, SIZES, SMALL, TYPES, geometry, shapes, terms, weight
from tests.op_cases import OpCase


def make(draw, n, *layer):
    x, g, V, (_, *options) = shapes(n, *layer)
    bias, wide = n != 2, n == 3
    kind = draw.sums if wide else draw.normal
    return draw.normal(*x), draw.normal(*g), kind(*V), kind(V[0]) if bias else None, *options


def builds() -> Iterator[Build]:
    """With v_b; a step within one tap, and one of several."""
    from fastrw.kernels.conv_dot import CONFIGS, _conv_dot_kernel  # imports Triton

    for family, configs in CONFIGS.items():
        for dtype, other, precision in KINDS[family]:
            unit = units(dtype, family != "narrow")
            pointers = {"x_ptr": dtype, "g_ptr": dtype, "V_ptr": other, "v_b_ptr": "fp32", "partial_ptr": "fp32"}
            for config in configs[:1] if dtype == "fp16" else configs:
                for block_c in (config.BLOCK_K,) if dtype == "fp16" else (config.BLOCK_K, 4 if unit == 1 else 16):
                    yield build(
                        _conv_dot_kernel,
                        config,
                        pointers,
                        {"UNIT": unit, "BIAS": True, "BLOCK_C": block_c, "PRECISION": precision},
                        aligned=unit > 1,
                        tensor_rows=tensor_rows(config.BLOCK_M, dtype, precision),
                        about={"family": family, "dtype": dtype, "precision": precision, "block_c": block_c},
                    )


CASE = OpCase(
    op="conv_dot",
    names=("x", "g", "V", "v_b", "stride", "padding", "dilation", "groups"),
    make=make,
    sizes=SIZES,
    large=LARGE,
    fuzz=(st.integers(0, 3), *FUZZ),
    terms=terms,
    small=SMALL,
    rules=[
        *geometry(),
        *weight(),
        ({"V": torch.ones(5, 1, 2, 2)}, "g [n, O, ...] and V [O, ...] must have the same O, got 4 and 5"),
        ({"v_b": torch.ones(3)}, "g [n, O, ...] and v_b [O] must have the same O, got 4 and 3"),
    ],
    types=[*TYPES, ({"V": [[1.0]]}, "V must be a tensor, got list")],
    builds=builds,
)
