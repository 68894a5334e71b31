"""conv_tangent: the tangent of a convolution, and the channel sums that a BatchNorm after it needs, in one pass."""

import torch
from torch import Tensor

from . import checks, convolution
from .backends import register
from .call import call
from .convolution import Ints
from .sample import Whole

_OP = "conv_tangent"


def conv_tangent(
    x: Tensor,  # [n, C, *size] inputs
    V: Tensor,  # [O, C / groups, *kernel] direction of the weight
    v_b: Tensor | None,  # [O] direction of the bias; None: 0
    t: Tensor | None,  # [n, C, *size] tangent of x, of its dtype or that of the sums; None: 0
    W: Tensor | None,  # [O, C / groups, *kernel] the weight; given where t is, and only there
    y: Tensor,  # [n, O, *size out] the convolution's output
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:  # t_y [n, O, *size out], sums [2, O]
    """t_y = conv(x, V) + v_b + conv(t, W), and the sums of t_y and of t_y y over examples and positions

    The tangent of y = conv(x, W) along (V, v_b): one layer of the derivative that Eq. 7 of Ren et al. 2018 takes, where
    examples are coupled and rows will not do. The C++ kernel computes both convolutions in one accumulation, and the
    sums as it writes t_y: `batch_norm_tangent` then needs no separate pass for its means.
    """
    return call(_OP, backend, x, V, v_b, t, W, y, stride, padding, dilation, groups)


def _rules(x, V, v_b, t, W, y, stride, padding, dilation, groups) -> None:
    if (t is None) != (W is None):
        raise ValueError(f"fastrw.{_OP}: t and W must be given together, got one alone")
    convolution.weight(_OP, x, V, groups)
    convolution.geometry(_OP, x, V.shape[2:], stride, padding, dilation, groups, y=y)
    checks.alike(_OP, "x", x, t=t)
    checks.alike(_OP, "V", V, W=W)


def _outputs(x, V, v_b, t, W, y, *options) -> tuple[Tensor, Tensor]:
    dtype = checks.sums(x.dtype)
    t_y = x.new_empty(y.shape, dtype=dtype)
    if y.ndim == 4 and not y.is_contiguous() and y.is_contiguous(memory_format=torch.channels_last):
        t_y = t_y.contiguous(memory_format=torch.channels_last)
    return t_y, x.new_empty(2, y.shape[1], dtype=dtype)


def _sample(whole: Whole) -> tuple:
    x, y, V, _, *options = convolution.sample(whole)
    return x, V, V.flatten(1).sum(1), x.flip(0), V.flip(0), y, *options


register(
    conv_tangent,
    letters={"x": "nC*", "V": "O*", "v_b": "O", "t": "nC*", "W": "O*", "y": "nO*"},
    wide=("V", "v_b", "t", "W"),
    rules=_rules,
    outputs=_outputs,
    sample=_sample,
    order={"cpu": ("cpp",)},  # 0.3 to 0.95 of torch's time, but 1.1 where many weights meet few positions
    reference_wins=lambda x, V, v_b, t, W, y, *rest: convolution.crowded(V, y, 1000),
    cpp_refusal=convolution.cpp_refusal,
)
