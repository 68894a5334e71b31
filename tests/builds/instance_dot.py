from collections.abc import Iterator

from fastrw.kernels.instance_dot import CONFIGS, _instance_dot_kernel
from tests.builds.build import KINDS, Build, build, tensor_rows, units


def builds() -> Iterator[Build]:
    """With v_b, and V in float32, which are the larger kernels; stored or not."""
    for family, configs in CONFIGS.items():
        for dtype, other, precision in KINDS[family]:
            if dtype != other:
                continue
            unit = units(dtype, family != "narrow")
            pointers = {
                "a_ptr": dtype,
                "g_ptr": dtype,
                **dict.fromkeys(("V_ptr", "v_b_ptr", "partial_ptr", "G_ptr"), "fp32"),
            }
            for config in configs:
                for keep in (True,) if dtype == "fp16" else (True, False):
                    yield build(
                        _instance_dot_kernel,
                        config,
                        pointers,
                        {"UNIT_P": unit, "UNIT_Q": unit, "BIAS": True, "KEEP": keep, "PRECISION": precision},
                        aligned=unit > 1,
                        tensor_rows=tensor_rows(config.BLOCK_Q, dtype, precision),
                        about={"family": family, "dtype": dtype, "precision": precision, "keep": keep},
                    )
