"""conv_dot: the scores of a convolution, conv(x, V) dotted with g tile by tile."""

import torch
from torch import Tensor

from . import backends, checks, convolution, reference
from .convolution import Ints
from .function import call

_OP = "conv_dot"
_LETTERS = {"x": "nC*", "g": "nO*", "V": "O*", "v_b": "O"}


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
        x, g: tensors [n, C, *size] and [n, O, *size out] of one dtype (float32, bfloat16, float16, or float64) on one
            device, of 1 to 3 dimensions after the channels, with any strides (channels last too). n may be 0.
        V, v_b: [O, C / groups, *kernel] and [O], or None where there is no bias; of the dtype of x or of its sums.
        stride, padding, dilation: an integer a dimension, as torch.nn.functional.conv2d takes them.
        groups: divides C and O.
        backend: "auto" (the fastest measured one that can serve), "reference", "cpp" (1 and 2 dimensions), "cuda"
            or "triton". float64 is served by reference and cpp alone.

    Returns:
        s [n] on the same device, float32 (float64 for float64 inputs); sums are kept in that dtype. Differentiable in
        every tensor, to any order, in reverse and forward mode, and under vmap.

    Raises:
        TypeError: an argument is not a tensor, or not integers, as said above.
        ValueError: dtypes, devices, shapes or numbers break the rules above, or no backend has that name.
        fastrw.Refused: the backend asked for cannot serve these tensors; the text says why.
    """
    _check(x, g, V, v_b, stride, padding, dilation, groups)
    return call(_OP, backend, x, g, V, v_b, list(stride), list(padding), list(dilation), groups)


def _check(x, g, V, v_b, stride, padding, dilation, groups) -> None:
    checks.tensors(_OP, _LETTERS, wide=("V", "v_b"), x=x, g=g, V=V, v_b=v_b)
    convolution.weight(_OP, x, groups, V=V)
    convolution.geometry(_OP, x, V.shape[2:], stride, padding, dilation, groups, g=g)


def _triton(*args) -> Tensor:
    from fastrw.kernels.conv_dot import launch_conv_dot  # Triton is imported when it is first used

    return launch_conv_dot(*args)


def _sample(device: torch.device, dtype: torch.dtype) -> tuple:
    x, g, V, _, *options = convolution.sample(device, dtype)
    return x, g, V, V.flatten(1).sum(1), *options


def _empty(x, g, V, v_b, stride, padding, dilation, groups) -> Tensor:
    _check(x, g, V, v_b, stride, padding, dilation, groups)
    return x.new_empty(x.shape[0], dtype=checks.sums(x.dtype))


def _order(x, g, V, *rest) -> tuple[str, ...]:
    if x.device.type == "cuda":
        return ("cuda", "triton")  # cuda: torch's convolution, then one pass; not measured yet
    # 0.6 to 1 of torch's time, but 1.05 and more where many weights meet few positions
    return () if convolution.crowded(V, g, 500) else ("cpp",)


backends.register(
    _OP,
    schema="(Tensor x, Tensor g, Tensor V, Tensor? v_b, int[] stride, int[] padding, int[] dilation, int groups) "
    "-> Tensor",
    reference=reference.conv_dot,
    triton=_triton,
    fake=_empty,
    sample=_sample,
    order=_order,
    unfit={"cpp": convolution.unfit},
)
