"""conv_outer: the weight gradient of a convolution, its examples weighted; those of weight 0 are left out."""

from torch import Tensor

from . import checks, convolution
from .backends import register
from .call import call
from .convolution import Ints
from .sample import Whole


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
    Learning" (Ren et al. 2018) weight; with w = None and validation examples it is V. An example of weight 0 adds
    nothing, whatever it holds: the C++ kernel does not read it.

    Args:
        x, g: [n, C, *size] and [n, O, *size out], of 1 to 3 dimensions after the channels.
        w: [n], of the dtype of x or of the sums; None: ones.
        kernel, stride, padding, dilation: an integer a dimension, as torch.nn.functional.conv2d takes them.
        groups: divides C and O.
        backend: "reference" or "cpp" (1 and 2 dimensions). Dtypes, results, derivatives and errors: see `fastrw.ops`.

    Returns:
        [O, C / groups, *kernel]; on the CPU the same bits in every run with as many threads.
    """
    return call("conv_outer", backend, x, g, w, kernel, stride, padding, dilation, groups)


def _rules(x, g, w, *options) -> None:
    convolution.geometry("conv_outer", x, *options, g=g)


def _outputs(x, g, w, kernel, stride, padding, dilation, groups) -> Tensor:
    return x.new_empty(g.shape[1], x.shape[1] // groups, *kernel, dtype=checks.sums(x.dtype))


def _sample(whole: Whole) -> tuple:
    x, g, _, *options = convolution.sample(whole)
    return x, g, whole(len(x)), *options


register(
    "conv_outer",
    letters={"x": "nC*", "g": "nO*", "w": "n"},
    wide=("w",),
    rules=_rules,
    outputs=_outputs,
    sample=_sample,
    order={"cpu": ("cpp",)},
    cpp_refusal=convolution.cpp_refusal,
)
