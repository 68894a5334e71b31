"""conv_instance: the weight gradient of each example of a convolution, dotted with V while it is made, and kept."""

from torch import Tensor

from . import checks, convolution
from .backends import launcher, register
from .call import call
from .convolution import Ints
from .sample import Whole

_OP = "conv_instance"


def conv_instance(
    x: Tensor,  # [n + m, C, *size] inputs, validation last
    g: Tensor,  # [n + m, O, *size out] output-gradients; of the mean over validation for a validation example
    n: int,  # how many of the examples are train examples
    V: Tensor | None,  # [O, C / groups, *kernel] validation gradient of the weight; None: from the examples from n on
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:  # s [n], G [n, O, C / groups, *kernel], V [O, C / groups, *kernel]
    """G_i, the gradient of the weight from example i < n alone, s_i = <G_i, V>, and V = sum_{j >= n} G_j

    Eq. 7 of Ren et al. 2018 at eps = 0, for one convolution in instance form: G serves the update too, by
    `combine(G, w)`. Worth its memory where G_i is no larger than x_i and g_i: early convolutions. n and m may be 0;
    validation examples are not read where V is given.

    Returns:
        s, G and V. The strides of G are those in which the backend makes it: on the CPU output channels are adjacent,
        and padded.
    """
    return call(_OP, backend, x, g, n, V, kernel, stride, padding, dilation, groups)


def _rules(x, g, n, V, kernel, stride, padding, dilation, groups) -> None:
    checks.integer(_OP, 0, n=n)
    if n > x.shape[0]:
        raise ValueError(f"fastrw.{_OP}: n must be at most the examples of x, got {n} and {x.shape[0]}")
    if V is not None:
        convolution.weight(_OP, x, V, groups)
    convolution.geometry(_OP, x, kernel, stride, padding, dilation, groups, g=g)
    if V is not None and list(V.shape[2:]) != list(kernel):
        raise ValueError(f"fastrw.{_OP}: V must have the sizes of kernel, got shape {tuple(V.shape)}")


def _outputs(x, g, n, V, kernel, stride, padding, dilation, groups) -> tuple[Tensor, Tensor, Tensor]:
    dtype, O = checks.sums(x.dtype), g.shape[1]
    G = convolution.empty_instances(x, n, O, groups, kernel)
    return x.new_empty(n, dtype=dtype), G, x.new_empty(O, x.shape[1] // groups, *kernel, dtype=dtype)


_launch = launcher(_OP)


def _triton(x, g, n, V, kernel, *options) -> tuple[Tensor, Tensor, Tensor]:
    s, G, V = _launch(x, g, n, V, kernel, *options)
    if G.device.type == "cpu":  # only under its interpreter: G is laid out as the C++ kernels leave it
        G = convolution.empty_instances(x, n, g.shape[1], options[-1], kernel).copy_(G)
    return s, G, V


def _sample(whole: Whole) -> tuple:
    x, g, _, *options = convolution.sample(whole)
    return x, g, 3, None, *options


register(
    conv_instance,
    letters={"x": "NC*", "g": "NO*", "V": "O*"},  # N = n + m: train and validation examples
    wide=("V",),
    rules=_rules,
    outputs=_outputs,
    sample=_sample,
    order={"cpu": ("cpp",), "cuda": ("triton",)},
    triton=_triton,
    cpp_refusal=convolution.cpp_refusal,
)
