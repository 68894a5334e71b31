"""How every launch test judges a kernel: by the reference in float64, on numbers as its tensor cores take them."""

import torch

from fastrw.ops.self_test import as_tuple
from fastrw.ops.tolerance import bound, relative_error

DTYPES = {  # family -> dtype of the rows, of the other factor
    "hopper": (torch.bfloat16, torch.bfloat16),
    "half": (torch.bfloat16, torch.bfloat16),
    "wide": (torch.float16, torch.float32),
    "tf32": (torch.float32, torch.float32),
    "ieee": (torch.float32, torch.float32),
    "narrow": (torch.bfloat16, torch.bfloat16),
}


def every(configs):
    """Each config with its family, for parametrize."""
    return [(family, config) for family in configs for config in configs[family]]


def to_tf32(x):
    """Ten bits of the mantissa, rounded to nearest even as the interpreter does."""
    bits = x.view(torch.int32)
    return (bits + 0xFFF + (bits >> 13 & 1) & ~0x1FFF).view(torch.float32)


def check(got, spec, args, terms):
    """Every result of a launch is right by the rule of fastrw.tolerance."""
    wide = [x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in args]
    for result, truth, plain in zip(as_tuple(got), as_tuple(spec(*wide)), as_tuple(spec(*args)), strict=True):
        assert (result.dtype, result.shape) == (plain.dtype, plain.shape)
        assert relative_error(result, truth) <= bound(torch.float32, relative_error(plain, truth), terms)
