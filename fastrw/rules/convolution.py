"""Convolutions are linear in weight and bias: T = conv(x, D_W) + d_b, at any stride, padding, dilation and groups."""

from collections.abc import Sequence

import torch

from fastrw.ops import conv_dot
from fastrw.rules.directed import Rule, direction


def _rule(convolution) -> Rule:
    def tangent(input, weight, bias=None, *rest, **options):
        d, shift = direction(weight), direction(bias)
        if d is None:  # the bias alone is selected
            return shift.view(1, -1, *[1] * (input.ndim - 2))
        return convolution(input, d, shift, *rest, **options)

    dims = DIMENSIONS.get(convolution)

    def dot(g, backend, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        """[n]: conv_dot, the product never in memory."""
        d, shift = direction(weight), direction(bias)
        if d is None or input.ndim != dims + 2 or isinstance(padding, str):
            return None
        options = (each(x, dims) for x in (stride, padding, dilation))
        return conv_dot(input, g.to(input.dtype), d, shift, *options, groups, backend=backend)

    return Rule(tangent, "weight", "bias", dot=dot if dims else None)


def each(value: int | Sequence[int], dims: int) -> list[int]:
    """One number a dimension."""
    return [value] * dims if isinstance(value, int) else list(value) * (dims if len(value) == 1 else 1)


DIMENSIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
TRANSPOSED = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)
RULES = {convolution: _rule(convolution) for convolution in (*DIMENSIONS, *TRANSPOSED)}
