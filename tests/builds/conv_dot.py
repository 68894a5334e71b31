from collections.abc import Iterator

from fastrw.kernels.conv_dot import CONFIGS, _conv_dot_kernel
from tests.builds.build import KINDS, Build, build, tensor_rows, units


def builds() -> Iterator[Build]:
    """With v_b; a step within one tap, and one of several."""
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
