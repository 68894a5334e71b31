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
    v_b: Tensor | None,  # [O] validation gradient of the bias
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    *,
    backend: str = "auto",
) -> Tensor:  # [n]
    """s_i = <g_i, conv(x, V)_i + v_b>

    The directional derivative of the convolution along (V, v_b), dotted with the gradient of its output: Eq. 7 of
    "Learning to Reweight Examples for Robust Deep Learning" (Ren et al. 2018) at eps = 0, for one convolution in
    project form. The C++ kernel never writes conv(x, V).

    Args:
        x, g: [n, C, *size] and [n, O, *size out], of 1 to 3 dimensions after the channels.
        V, v_b: [O, C / groups, *kernel] and [O], or None where there is no bias; of the dtype of x or of the sums.
        stride, padding, dilation: an integer a dimension, as torch.nn.functional.conv2d takes them.
        groups: divides C and O.
        backend: "reference", "cpp" (1 and 2 dimensions), "cuda" or "triton". Dtypes, results, derivatives and errors:
            see `fastrw.ops`.

    Returns:
        s [n]
    """
    return call("conv_dot", backend, x, g, V, v_b, stride, padding, dilation, groups)


def _rules(x, g, V, v_b, stride, padding, dilation, groups) -> None:
    convolution.weight("conv_dot", x, V, groups)
    convolution.geometry("conv_dot", x, V.shape[2:], stride, padding, dilation, groups, g=g)


def _sample(whole: Whole) -> tuple:
    x, g, V, _, *options = convolution.sample(whole)
    return x, g, V, V.flatten(1).sum(1), *options


def _order(x, g, V, *rest) -> tuple[str, ...]:
    if x.device.type == "cuda":
        return ("cuda", "triton")  # cuda: torch's convolution, then one pass; not measured yet
    # 0.6 to 1 of torch's time, but 1.05 and more where many weights meet few positions
    return () if convolution.crowded(V, g, 500) else ("cpp",)


register(
    "conv_dot",
    letters={"x": "nC*", "g": "nO*", "V": "O*", "v_b": "O"},
    wide=("V", "v_b"),
    rules=_rules,
    outputs=("n",),
    sample=_sample,
    order=_order,
    triton=True,
    cpp_refusal=convolution.cpp_refusal,
)
