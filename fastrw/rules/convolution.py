"""Convolutions are linear in weight and bias: T = conv(x, D_W) + d_b, at any stride, padding, dilation and groups."""

import torch

from fastrw.rules.directed import Rule, direction


def _rule(convolution) -> Rule:
    def tangent(input, weight, bias=None, *rest, **options):
        d, shift = direction(weight), direction(bias)
        if d is None:  # the bias alone is selected
            return shift.view(1, -1, *[1] * (input.ndim - 2))
        return convolution(input, d, shift, *rest, **options)

    return Rule(tangent, "weight", "bias")


RULES = {
    convolution: _rule(convolution)
    for convolution in (torch.conv1d, torch.conv2d, torch.conv3d,
                        torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)
}  # fmt: skip
