from collections.abc import Iterator

from fastrw.kernels.gram_dot import CONFIGS, _gram_dot_kernel
from tests.builds.build import KINDS, Build, build, tensor_rows, units


def builds() -> Iterator[Build]:
    for family, configs in CONFIGS.items():
        for dtype, other, precision in KINDS[family]:
            if dtype != other:
                continue
            pointers = dict.fromkeys(("a_ptr", "g_ptr", "a_val_ptr", "g_val_ptr"), dtype) | {"partial_ptr": "fp32"}
            for config in configs:
                for unit_p in {units(dtype, family != "narrow"), units(dtype, True)}:
                    unit_q = units(dtype, family != "narrow")
                    yield build(
                        _gram_dot_kernel,
                        config,
                        pointers,
                        {"UNIT_P": unit_p, "UNIT_Q": unit_q, "PRECISION": precision},
                        aligned=unit_p > 1,
                        floats=("bias",),
                        tensor_rows=tensor_rows(config.BLOCK_R, dtype, precision),
                        about={"family": family, "dtype": dtype, "precision": precision, "units": [unit_p, unit_q]},
                    )
