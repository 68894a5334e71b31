"""Tensors read as they lie in memory: one decides the layout, the others follow it."""

import torch
from torch import Tensor


def dense(x: Tensor) -> Tensor:
    """x [n, C, ...] itself where its channels or its positions lie side by side without gaps, else a copy."""
    return x if channels_last(x) else x.contiguous()


def channels_last(x: Tensor) -> bool:
    """[n, *positions, C] without gaps: a contiguous [n, C] is."""
    return x.dim() >= 2 and x.movedim(1, -1).is_contiguous()


def laid_out_as(x: Tensor, t: Tensor | None) -> Tensor | None:
    """t laid out as x, which is dense and of its shape."""
    same = t is None or all(s == u or size == 1 for size, s, u in zip(x.shape, x.stride(), t.stride(), strict=True))
    return t if same else torch.empty_like(x).copy_(t)
