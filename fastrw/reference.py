"""What each op computes, in a few einsum lines: the spec that every backend is tested against.

Any floating dtype on any device; sums are kept in float32, in float64 for float64. Autocast does not reach them.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor


def _wide(spec: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Hand the spec its tensors in the dtype that its sums are kept in."""

    @functools.wraps(spec)
    def run(*args, **options):
        narrow = (torch.bfloat16, torch.float16)
        with torch.autocast(args[0].device.type, enabled=False):
            wide = (x.float() if isinstance(x, Tensor) and x.dtype in narrow else x for x in args)
            return spec(*wide, **options)

    return run


@_wide
def gram_dot(a: Tensor, g: Tensor, a_val: Tensor, g_val: Tensor, bias: float = 1.0) -> Tensor:
    """s_r = sum_k (a_r . a_k + bias)(g_r . g_k), Eq. 12 of Ren et al. 2018 for one linear use."""
    inputs = torch.einsum("rp,kp->rk", a, a_val) + bias
    gradients = torch.einsum("rq,kq->rk", g, g_val)
    return torch.einsum("rk,rk->r", inputs, gradients)
