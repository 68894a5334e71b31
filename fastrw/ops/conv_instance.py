"""conv_instance: the weight gradient of each example of a convolution, dotted with V while it is made, and kept."""

import torch
from torch import Tensor

from . import backends, checks, convolution, reference
from .convolution import Ints
from .function import call

_OP = "conv_instance"
_LETTERS = {"x": "NC*", "g": "NO*", "V": "O*"}  # N = n + m: train and validation examples


def conv_instance(
    x: Tensor,  # [n + m, C, *size] inputs, validation last
    g: Tensor,  # [n + m, O, *size out] output-gradients
    n: int,
    V: Tensor | None,  # [O, C / groups, *kernel] validation gradient of the weight
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:  # [n], [n, O, C / groups, *kernel], [O, C / groups, *kernel]
    """G_i, the gradient of the weight from example i < n alone, s_i = <G_i, V>, and V = sum_{j >= n} G_j

    Eq. 7 of "Learning to Reweight Examples for Robust Deep Learning" (Ren et al. 2018) at eps = 0, for one convolution
    in instance form: G serves the update too, by `combine(G, w)`. Worth its memory where G_i is no larger than x_i and
    g_i: early convolutions.

    Args:
        x, g: tensors [n + m, C, *size] and [n + m, O, *size out] of one dtype (float32, bfloat16, float16, or float64)
            on one device, of 1 to 3 dimensions after the channels, with any strides (channels last too). g_j of a
            validation example is the gradient of the mean over validation. n and m may be 0.
        n: how many of the examples are train examples.
        V: [O, C / groups, *kernel], of the dtype of x or of its sums; None: it is taken from the examples from n on.
            They are not read where V is given.
        kernel, stride, padding, dilation: an integer a dimension, as torch.nn.functional.conv2d takes them.
        groups: divides C and O.
        backend: "auto" (the fastest measured one that can serve), "reference", "cpp" (1 and 2 dimensions) or "triton".
            float64 is served by reference and cpp alone.

    Returns:
        s [n], G [n, O, C / groups, *kernel] and V, float32 (float64 for float64 inputs), the dtype in which sums are
        kept. The strides of G are those in which the backend makes it: on the CPU output channels are neighbours, and
        padded. Differentiable in every tensor, to any order, in reverse and forward mode, and under vmap.

    Raises:
        TypeError: an argument is not a tensor, or not an integer or integers, as said above.
        ValueError: dtypes, devices, shapes or numbers break the rules above, or no backend has that name.
        fastrw.Refused: the backend asked for cannot serve these tensors; the text says why.
    """
    _check(x, g, n, V, kernel, stride, padding, dilation, groups)
    return call(_OP, backend, x, g, n, V, list(kernel), list(stride), list(padding), list(dilation), groups)


def _check(x, g, n, V, kernel, stride, padding, dilation, groups) -> None:
    checks.tensors(_OP, _LETTERS, wide=("V",), x=x, g=g, V=V)
    convolution.integer(_OP, 0, n=n)
    if n > x.shape[0]:
        raise ValueError(f"fastrw.{_OP}: n must be at most the examples of x, got {n} and {x.shape[0]}")
    convolution.weight(_OP, x, groups, V=V)
    convolution.geometry(_OP, x, kernel, stride, padding, dilation, groups, g=g)
    if V is not None and list(V.shape[2:]) != list(kernel):
        raise ValueError(f"fastrw.{_OP}: V must have the sizes of kernel, got shape {tuple(V.shape)}")


def _triton(x, g, n, V, kernel, *options) -> tuple[Tensor, Tensor, Tensor]:
    from fastrw.kernels.conv_instance import launch_conv_instance  # Triton is imported when it is first used

    s, G, V = launch_conv_instance(x, g, n, V, kernel, *options)
    if G.device.type == "cpu":  # its interpreter alone: G lies there as the C++ kernels leave it
        G = convolution.empty_instances(x, n, g.shape[1], options[-1], kernel).copy_(G)
    return s, G, V


def _sample(device: torch.device, dtype: torch.dtype) -> tuple:
    x, g, _, *options = convolution.sample(device, dtype)
    return x, g, 3, None, *options


def _empty(x, g, n, V, kernel, stride, padding, dilation, groups) -> tuple[Tensor, Tensor, Tensor]:
    _check(x, g, n, V, kernel, stride, padding, dilation, groups)
    dtype, O = checks.sums(x.dtype), g.shape[1]
    G = convolution.empty_instances(x, n, O, groups, kernel)
    return x.new_empty(n, dtype=dtype), G, x.new_empty(O, x.shape[1] // groups, *kernel, dtype=dtype)


backends.register(
    _OP,
    schema="(Tensor x, Tensor g, int n, Tensor? V, int[] kernel, int[] stride, int[] padding, int[] dilation, "
    "int groups) -> (Tensor, Tensor, Tensor)",
    reference=reference.conv_instance,
    triton=_triton,
    fake=_empty,
    sample=_sample,
    order={
        "cpu": ("cpp",),
        "cuda": ("triton",),  # by the roof; not measured yet
    },
    unfit={"cpp": convolution.unfit},
)
