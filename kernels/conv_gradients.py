"""conv_gradients in Triton: the kernel of conv_instance, which sums chunks of examples, for chunks of one."""

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from fastrw.kernels.common import family, sm_count
from fastrw.kernels.conv_instance import CONFIGS as CONFIGS
from fastrw.kernels.conv_instance import choose_config, gradients, launch
from fastrw.kernels.convolution import along_channels, convolution, copied_as
from fastrw.kernels.plans import planned
from fastrw.kernels.precision import of_convolutions


@planned(of_convolutions)
def launch_conv_gradients(x: Tensor, g: Tensor, kernel: Sequence[int], *options) -> Callable[..., Tensor]:
    """G [n, O, C / groups, *kernel] float32, of float32, bfloat16 or float16 x and g.

    options: stride, padding and dilation, a number a dimension, and groups.
    """
    n, precision = len(x), of_convolutions(x.dtype)
    it = along_channels(convolution(x, g, kernel, *options))
    copy_x, copy_g = copied_as(x, it.x), copied_as(g, it.g)
    (C, O), kind = it.channels, family(x, precision=precision, aligned=it.unit > 1)
    config = choose_config(n, O, C * it.taps, kind, sm_count(x.device))
    shape, strides = gradients(n, O * it.groups, C, kernel)
    fill = launch(it, (0, n), None, n, precision, config) if prod(shape) else None

    def serve(x: Tensor, g: Tensor, *rest) -> Tensor:
        G = x.new_empty_strided(shape, strides, dtype=torch.float32)
        if fill is not None:
            fill(x if copy_x is None else copy_x(x), g if copy_g is None else copy_g(g), None, None, None, G)
        return G

    return serve
