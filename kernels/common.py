"""What the launchers share: alignment, reach of 32-bit offsets, and the choice between tested tiles.

A family is a set of configs: "half" is bfloat16 and float16; float32 is "ieee" or "tf32", see precision.py;
"wide" is bfloat16 or float16 times float32, exactly; "narrow" serves rows that are not aligned to 16 bytes: larger
tiles spill there.
"""

from collections import namedtuple
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

MAX_STRIDE = 2**24  # a tile of 128 rows of this stride is the most that 32-bit offsets reach


def config_type(*blocks: str) -> type:
    """The type of a kernel's configs, a tile and how it runs. Tests compile every config and check its registers,
    spills and matrix instructions."""
    return namedtuple("Config", (*blocks, "num_warps", "num_stages"))


def rows(x: Tensor) -> Tensor:
    """Rows of adjacent elements that 32-bit offsets reach."""
    return x if x.stride(-1) == 1 and x.stride(-2) <= MAX_STRIDE else x.contiguous()


def unit(*tensors: Tensor) -> int:
    """Elements in 16 bytes where every width, stride and address of all is a multiple of 16 bytes, else 1."""
    size = 16 // tensors[0].element_size()

    def aligned(x: Tensor) -> bool:
        return (
            x.data_ptr() % 16 == 0
            and x.shape[-1] % size == 0
            and all(stride % size == 0 for stride, n in zip(x.stride()[:-1], x.shape[:-1], strict=True) if n > 1)
        )

    return size if all(map(aligned, tensors)) else 1


def family(x: Tensor, *others: Tensor, precision: str, aligned: bool) -> str:
    """The set of configs for products of x with the others. precision: that of float32."""
    if not aligned:
        return "narrow"
    if x.dtype == torch.float32:
        return precision
    return "half" if all(y.dtype == x.dtype for y in others) else "wide"


def cdiv(x: int, y: int) -> int:
    """x / y, rounded up. (`triton.cdiv` is a function of kernels too, and takes six times as long.)"""
    return -(-x // y)


def choose(configs: Sequence[tuple], height: int, width: int, sm_count: int) -> tuple:
    """The largest tile, first of its config, that is not half empty and of which every SM gets one."""
    for config in configs:
        tiles = cdiv(height, config[0]) * cdiv(width, config[1])
        if 2 * height > config[0] and 2 * width > config[1] and tiles >= sm_count:
            return config
    return configs[-1]


def steps_per_program(steps: int, programs: int, sm_count: int) -> int:
    """Of this many steps, how many a program takes so that two programs per SM run."""
    splits = min(max(steps, 1), cdiv(2 * sm_count, max(programs, 1)))
    return cdiv(max(steps, 1), splits)


@cache
def sm_count(device: torch.device) -> int:
    """Streaming multiprocessors; 1 for Triton's interpreter."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


@cache
def hopper(device: torch.device) -> bool:
    """Compute capability 9 or later: more shared memory, products of 64 rows."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
