from collections.abc import Iterator

from fastrw.kernels.embedding_dot import CONFIGS, _embedding_dot_kernel
from tests.builds.build import Build, build, units


def builds() -> Iterator[Build]:
    for config in CONFIGS:
        for dtype, other, aligned in (
            ("bf16", "bf16", True),
            ("bf16", "fp32", True),
            ("fp32", "fp32", True),
            ("fp16", "fp16", False),
        ):
            unit_g, unit_V = units(dtype, aligned), units(other, aligned)
            pointers = {"idx_ptr": "i64", "g_ptr": dtype, "V_ptr": other, "s_ptr": "fp32"}
            constants = {"UNIT_Q": max(unit_g, unit_V), "UNIT_G": unit_g, "UNIT_V": unit_V}
            about = {"dtype": dtype, "other": other, "units": [unit_g, unit_V]}
            yield build(_embedding_dot_kernel, config, pointers, constants, aligned=aligned, about=about)
