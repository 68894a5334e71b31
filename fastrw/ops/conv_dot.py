"""conv_dot: the scores of a convolution, conv(x, V) dotted with g tile by tile."""

from collections.abc import Callable

import torch
from torch import Tensor

from fastrw.kernels.precision import of_convolutions

from . import convolution
from .backends import register
from .call import call
from .convolution import Ints
from .sample import Whole


def conv_dot(
    x: Tensor,  # [n, C, *size] inputs
    g: Tensor,  # [n, O, *size out] output-gradients
    V: Tensor,  # [O, C / groups, *kernel] validation gradient of the weight
    v_b: Tensor | None,  # [O] validation gradient of the bias; None where there is none
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    *,
    backend: str = "auto",
) -> Tensor:  # [n]
    """s_i = <g_i, conv(x, V)_i + v_b>

    The directional derivative of the convolution along (V, v_b), dotted with the gradient of its output: Eq. 7 of Ren
    et al. 2018 at eps = 0, for one convolution in project form. The C++ kernel never writes conv(x, V).
    """
    return call("conv_dot", backend, x, g, V, v_b, stride, padding, dilation, groups)


def _rules(x, g, V, v_b, stride, padding, dilation, groups) -> None:
    convolution.weight("conv_dot", x, V, groups)
    convolution.geometry("conv_dot", x, V.shape[2:], stride, padding, dilation, groups, g=g)


def _sample(whole: Whole) -> tuple:
    x, g, V, _, *options = convolution.sample(whole)
    return x, g, V, V.flatten(1).sum(1), *options


def in_two_terms(kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The kernel calls torch's convolution, which may take float32 as TF32. That holds all of x of 16 bits,
    but not all of a V of 32: it is split into two terms that it holds, as in kernels/products.py."""

    def run(x: Tensor, g: Tensor, V: Tensor, v_b: Tensor | None, *options) -> Tensor:
        if V.dtype == x.dtype or of_convolutions() == "ieee":
            return kernel(x, g, V, v_b, *options)
        first = ((V.view(torch.int32) + 0x1000) & -0x2000).view(torch.float32)
        return kernel(x, g, first, v_b, *options) + kernel(x, g, V - first, None, *options)

    return run


register(
    conv_dot,
    letters={"x": "nC*", "g": "nO*", "V": "O*", "v_b": "O"},
    wide=("V", "v_b"),
    rules=_rules,
    outputs=("n",),
    sample=_sample,
    order={
        "cpu": ("cpp",),  # 0.6 to 1 of torch's time, but 1.05 and more where many weights meet few positions
        "cuda": ("cuda", "triton"),  # cuda: torch's convolution, then one pass
    },
    reference_wins=lambda x, g, V, *rest: convolution.crowded(V, g, 500),
    triton=True,
    on_cuda=in_two_terms,
    cpp_refusal=convolution.cpp_refusal,
)
