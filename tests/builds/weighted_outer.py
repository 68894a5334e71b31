from collections.abc import Iterator

from fastrw.kernels.weighted_outer import CONFIGS, LIST_BLOCK, _list_kernel, _weighted_outer_kernel
from tests.builds.build import KINDS, Build, build, tensor_rows, units


def builds() -> Iterator[Build]:
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
