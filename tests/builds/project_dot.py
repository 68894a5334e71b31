from collections.abc import Iterator

from fastrw.kernels.project_dot import CONFIGS, _project_dot_kernel
from tests.builds.build import KINDS, Build, build, tensor_rows, units


def builds() -> Iterator[Build]:
    """With v_b, which is the larger kernel; g misaligned where V is not, too: a vocabulary is odd."""
    for family, configs in CONFIGS.items():
        for dtype, other, precision in KINDS["half" if family == "hopper" else family]:
            pointers = {"a_ptr": dtype, "g_ptr": dtype, "V_ptr": other, "v_b_ptr": "fp32", "partial_ptr": "fp32"}
            unit_p = units(dtype, family != "narrow")
            for config in configs[:1] if family == "hopper" or dtype == "fp16" else configs:
                for unit_q in {unit_p} if family == "hopper" or dtype == "fp16" else {1, unit_p}:
                    yield build(
                        _project_dot_kernel,
                        config,
                        pointers,
                        {"UNIT_P": unit_p, "UNIT_Q": unit_q, "BIAS": True, "PRECISION": precision},
                        aligned=unit_p > 1,
                        tensor_rows=tensor_rows(config.BLOCK_R, dtype, precision),
                        least=90 if family == "hopper" else 80,
                        about={"family": family, "dtype": dtype, "precision": precision, "units": [unit_p, unit_q]},
                    )
