from collections.abc import Iterator

from fastrw.kernels.combine import CONFIG, _combine_kernel
from tests.builds.build import BYTES, Build, build, units


def builds() -> Iterator[Build]:
    for dtype in BYTES:
        for unit in (1, units(dtype, True)):
            pointers = {"G_ptr": dtype, "w_ptr": "fp32", "partial_ptr": "fp32"}
            about = {"family": "only", "dtype": dtype, "precision": "ieee", "units": [unit]}
            yield build(_combine_kernel, CONFIG, pointers, {"UNIT": unit}, aligned=unit > 1, about=about)
