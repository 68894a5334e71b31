"""conv_tangent: the tangent of a convolution, and the channel sums that a BatchNorm after it asks for, in one pass."""

import torch
from torch import Tensor

from . import backends, checks, convolution, reference
from .convolution import Ints
from .function import call

_OP = "conv_tangent"
_LETTERS = {"x": "nC*", "V": "O*", "v_b": "O", "t": "nC*", "W": "O*", "y": "nO*"}


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
    C++ kernel takes both convolutions in one accumulation, and the sums as it writes t_y: `batch_norm_tangent` then
    needs no pass of its own for its means.

    Args:
        x, y: tensors [n, C, *size] and [n, O, *size out] of one dtype (float32, bfloat16, float16, or float64) on one
            device, of 1 to 3 dimensions after the channels, with any strides (channels last too). n may be 0.
        V, v_b, t, W: as above, each of the dtype of x or of its sums; t and W are given together, or neither.
        stride, padding, dilation: an integer a dimension, as torch.nn.functional.conv2d takes them.
        groups: divides C and O.
        backend: "auto" (the fastest measured one that can serve), "reference" or "cpp" (1 and 2 dimensions).

    Returns:
        t_y [n, O, *size out] and sums [2, O], float32 (float64 for float64 inputs), the dtype in which sums are kept.
        Differentiable in every tensor, to any order, in reverse and forward mode, and under vmap.

    Raises:
        TypeError: an argument is not a tensor, or not integers, as said above.
        ValueError: dtypes, devices, shapes or numbers break the rules above, or no backend has that name.
        fastrw.Refused: the backend asked for cannot serve these tensors; the text says why.
    """
    _check(x, V, v_b, t, W, y, stride, padding, dilation, groups)
    return call(_OP, backend, x, V, v_b, t, W, y, list(stride), list(padding), list(dilation), groups)


def _check(x, V, v_b, t, W, y, stride, padding, dilation, groups) -> None:
    checks.tensors(_OP, _LETTERS, wide=("V", "v_b", "t", "W"), x=x, V=V, v_b=v_b, t=t, W=W, y=y)
    if (t is None) != (W is None):
        raise ValueError(f"fastrw.{_OP}: t and W must be given together, got one alone")
    convolution.weight(_OP, x, groups, V=V)
    convolution.geometry(_OP, x, V.shape[2:], stride, padding, dilation, groups, y=y)
    for name, like, given in (("t", ("x", x), t), ("W", ("V", V), W)):
        if given is not None and given.shape != like[1].shape:
            rule = f"{name} must have the shape of {like[0]}"
            raise ValueError(f"fastrw.{_OP}: {rule}, got {tuple(given.shape)} and {tuple(like[1].shape)}")


def _sample(device: torch.device, dtype: torch.dtype) -> tuple:
    x, y, V, _, *options = convolution.sample(device, dtype)
    return x, V, V.flatten(1).sum(1), x.flip(0), V.flip(0), y, *options


def _empty(x, V, v_b, t, W, y, stride, padding, dilation, groups) -> tuple[Tensor, Tensor]:
    _check(x, V, v_b, t, W, y, stride, padding, dilation, groups)
    dtype = checks.sums(x.dtype)
    t_y = x.new_empty(y.shape, dtype=dtype)
    if y.ndim == 4 and not y.is_contiguous() and y.is_contiguous(memory_format=torch.channels_last):
        t_y = t_y.contiguous(memory_format=torch.channels_last)
    return t_y, x.new_empty(2, y.shape[1], dtype=dtype)


def _order(x, V, v_b, t, W, y, *rest) -> tuple[str, ...]:
    # 0.3 to 0.95 of torch's time, but 1.1 where many weights meet few positions
    return () if x.device.type != "cpu" or convolution.crowded(V, y, 1000) else ("cpp",)


backends.register(
    _OP,
    schema="(Tensor x, Tensor V, Tensor? v_b, Tensor? t, Tensor? W, Tensor y, int[] stride, int[] padding, "
    "int[] dilation, int groups) -> (Tensor, Tensor)",
    reference=reference.conv_tangent,
    fake=_empty,
    sample=_sample,
    order=_order,
    unfit={"cpp": convolution.unfit},
)
