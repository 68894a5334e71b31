from collections.abc import Iterator

from fastrw.kernels.batch_norm_tangent import CONFIGS, _batch_norm_sums_kernel, _batch_norm_tangent_kernel
from tests.builds.build import Build, build, units

LIKE_X = ("x_ptr", "t_ptr", "residual_ptr", "output_ptr", "out_ptr")
CHANNELS = ("mean_ptr", "rstd_ptr", "weight_ptr", "d_weight_ptr", "d_bias_ptr", "sums_ptr", "partial_ptr")


def builds() -> Iterator[Build]:
    """The tangent with everything in it, which is the largest kernel; float16 is compiled as bfloat16 is."""
    for config in CONFIGS:
        for dtype, aligned in (("bf16", True), ("bf16", False), ("fp32", True)):
            for planes in (True, False):
                for kernel in (_batch_norm_sums_kernel, _batch_norm_tangent_kernel):
                    constants = {"UNIT": units(dtype, aligned), "PLANES": planes, "CENTRED": False}
                    pointers = dict.fromkeys(LIKE_X, dtype) | dict.fromkeys(CHANNELS, "fp32")
                    yield build(
                        kernel,
                        config,
                        {name: pointers[name] for name in kernel.arg_names if name in pointers},
                        {name: x for name, x in constants.items() if name in kernel.arg_names},
                        aligned=aligned,
                        about={"dtype": dtype, "planes": planes},
                    )
