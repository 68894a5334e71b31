"""conv_dot: the scores of a convolution, conv(x, V) dotted with g tile by tile."""

from torch import Tensor

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
    cpp_refusal=convolution.cpp_refusal,
)
