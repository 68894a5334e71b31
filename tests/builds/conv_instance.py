from collections.abc import Iterator

from fastrw.kernels.conv_instance import CONFIGS, _conv_instance_kernel
from tests.builds.build import KINDS, Build, build, tensor_rows, units


def builds() -> Iterator[Build]:
    """Each example or their sum; a tile within one tap, and one of several."""
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
