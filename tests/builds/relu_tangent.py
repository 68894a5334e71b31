from collections.abc import Iterator

from fastrw.kernels.relu_tangent import CONFIG, _relu_tangent_kernel
from tests.builds.build import Build, build, units


def builds() -> Iterator[Build]:
    for dtype, aligned in (("bf16", True), ("bf16", False), ("fp32", True)):
        pointers = dict.fromkeys(("t_ptr", "output_ptr", "out_ptr"), dtype)
        options = {"aligned": aligned, "about": {"dtype": dtype}}
        yield build(_relu_tangent_kernel, CONFIG, pointers, {"UNIT": units(dtype, aligned)}, **options)
