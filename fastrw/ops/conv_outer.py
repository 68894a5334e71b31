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
    w: Tensor | None,  # [n] weights; None: ones
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    *,
    backend: str = "auto",
) -> Tensor:  # [O, C / groups, *kernel]
    """sum_i w_i G_i, G_i the gradient of the weight from example i alone

    The weight's part of sum_i w_i grad f_i, the step that Eq. 8-9 of Ren et al. 2018 weight; with w = None and
    validation examples it is V. An example of weight 0 adds nothing, whatever it holds: kernels do not read it. On the
    CPU the result has the same bits in every run with as many threads.

    On a GPU cuDNN takes the sum in the dtype of x and g, but where summing chunks of examples moves less memory. Of
    bfloat16 or float16 it then rounds w_i g_i and the sum, kept in float32 on the way, to that dtype, as it does in a
    plain step; the result is float32 all the same.
    """
    return call("conv_outer", backend, x, g, w, kernel, stride, padding, dilation, groups)


def _outputs(x, g, w, kernel, stride, padding, dilation, groups) -> Tensor:
    return x.new_empty(g.shape[1], x.shape[1] // groups, *kernel, dtype=checks.sums(x.dtype))


def _sample(whole: Whole) -> tuple:
    x, g, _, *options = convolution.sample(whole)
    return x, g, whole(len(x)), *options


def _sample_of_large_weights(whole: Whole) -> tuple:
    """Two examples, whose gradients are larger than they are."""
    return whole(2, 16, 3, 4), whole(2, 8, 2, 2), whole(2), [2, 3], [1, 1], [0, 0], [1, 1], 1


register(
    conv_outer,
    letters={"x": "nC*", "g": "nO*", "w": "n"},
    wide=("w",),
    rules=lambda x, g, w, *options: convolution.geometry("conv_outer", x, *options, g=g),
    outputs=_outputs,
    sample=_sample,
    further_sample=_sample_of_large_weights,  # another kernel's
    order={"cpu": ("cpp",), "cuda": ("triton",)},
    triton=True,
    cpp_refusal=convolution.cpp_refusal,
)
