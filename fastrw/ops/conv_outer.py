"""conv_outer: the weight gradient of a convolution, its examples weighted; those of weight 0 are left out."""

import torch
from torch import Tensor

from . import backends, checks, convolution, reference
from .convolution import Ints
from .function import call

_OP = "conv_outer"
_LETTERS = {"x": "nC*", "g": "nO*", "w": "n"}


def conv_outer(
    x: Tensor,  # [n, C, *size] inputs
    g: Tensor,  # [n, O, *size out] output-gradients
    w: Tensor | None,  # [n] weights
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    *,
    backend: str = "auto",
) -> Tensor:  # [O, C / groups, *kernel]
    """sum_i w_i G_i, G_i the gradient of the weight from example i alone

    The weight's part of sum_i w_i grad f_i, the step that Eq. 8-9 of "Learning to Reweight Examples for Robust Deep
    Learning" (Ren et al. 2018) weigh; with w = None and validation examples it is V. An example of weight 0 adds
    nothing, whatever it holds: the C++ kernel does not read it.

    Args:
        x, g: tensors [n, C, *size] and [n, O, *size out] of one dtype (float32, bfloat16, float16, or float64) on one
            device, of 1 to 3 dimensions after the channels, with any strides (channels last too). n may be 0.
        w: [n], of the dtype of x or of its sums; None: ones.
        kernel, stride, padding, dilation: an integer a dimension, as torch.nn.functional.conv2d takes them.
        groups: divides C and O.
        backend: "auto" (the fastest measured one that can serve), "reference" or "cpp" (1 and 2 dimensions).

    Returns:
        [O, C / groups, *kernel] on the same device, float32 (float64 for float64 inputs); sums are kept in that dtype.
        On the CPU the same bits in every run of as many threads. Differentiable in every tensor, to any order, in
        reverse and forward mode, and under vmap.

    Raises:
        TypeError: an argument is not a tensor, or not integers, as said above.
        ValueError: dtypes, devices, shapes or numbers break the rules above, or no backend has that name.
        fastrw.Refused: the backend asked for cannot serve these tensors; the text says why.
    """
    _check(x, g, w, kernel, stride, padding, dilation, groups)
    return call(_OP, backend, x, g, w, list(kernel), list(stride), list(padding), list(dilation), groups)


def _check(x, g, w, kernel, stride, padding, dilation, groups) -> None:
    checks.tensors(_OP, _LETTERS, wide=("w",), x=x, g=g, w=w)
    convolution.geometry(_OP, x, kernel, stride, padding, dilation, groups, g=g)


def _sample(device: torch.device, dtype: torch.dtype) -> tuple:
    x, g, _, *options = convolution.sample(device, dtype)
    return x, g, torch.tensor([1, 0, 2, 0, 1], device=device, dtype=dtype), *options


def _empty(x, g, w, kernel, stride, padding, dilation, groups) -> Tensor:
    _check(x, g, w, kernel, stride, padding, dilation, groups)
    return x.new_empty(g.shape[1], x.shape[1] // groups, *kernel, dtype=checks.sums(x.dtype))


backends.register(
    _OP,
    schema="(Tensor x, Tensor g, Tensor? w, int[] kernel, int[] stride, int[] padding, int[] dilation, int groups) "
    "-> Tensor",
    reference=reference.conv_outer,
    fake=_empty,
    sample=_sample,
    order={"cpu": ("cpp",)},
    unfit={"cpp": convolution.unfit},
)
