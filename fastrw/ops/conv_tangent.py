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
    v_b: Tensor | None,  # [O] direction of the bias
    t: Tensor | None,  # [n, C, *size] tangent of x; None: 0
    W: Tensor | None,  # [O, C / groups, *kernel] the weight; needed where t is given
    y: Tensor,  # [n, O, *size out] the convolution's output
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:  # [n, O, *size out], [2, O]
    """t_y = conv(x, V) + v_b + conv(t, W), and the sums of t_y and of t_y y over examples and positions

    The tangent of y = conv(x, W) along (V, v_b): one layer of the derivative that Eq. 7 of "Learning to Reweight
    Examples for Robust Deep Learning" (Ren et al. 2018) takes, where examples are coupled and rows will not do. The
    C++ kernel computes both convolutions in one accumulation, and the sums as it writes t_y: `batch_norm_tangent` then
    needs no separate pass for its means.

    Args:
        x, y: [n, C, *size] and [n, O, *size out], of 1 to 3 dimensions after the channels.
        V, v_b, t, W: as above, each of the dtype of x or of the sums; t and W are given together, or neither.
        stride, padding, dilation: an integer a dimension, as torch.nn.functional.conv2d takes them.
        groups: divides C and O.
        backend: "reference" or "cpp" (1 and 2 dimensions). Dtypes, results, derivatives and errors: see `fastrw.ops`.

    Returns:
        t_y [n, O, *size out] and sums [2, O]
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


def _order(x, V, v_b, t, W, y, *rest) -> tuple[str, ...]:
    # 0.3 to 0.95 of torch's time, but 1.1 where many weights meet few positions
    return () if x.device.type != "cpu" or convolution.crowded(V, y, 1000) else ("cpp",)


register(
    _OP,
    letters={"x": "nC*", "V": "O*", "v_b": "O", "t": "nC*", "W": "O*", "y": "nO*"},
    wide=("V", "v_b", "t", "W"),
    rules=_rules,
    outputs=_outputs,
    sample=_sample,
    order=_order,
    cpp_refusal=convolution.cpp_refusal,
)
