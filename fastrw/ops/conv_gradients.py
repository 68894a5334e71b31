"""conv_gradients: the weight gradient of each example of a convolution."""

from torch import Tensor

from . import checks, convolution
from .backends import launcher, register
from .call import call
from .convolution import Ints
from .sample import Whole

_OP = "conv_gradients"


def conv_gradients(
    x: Tensor,  # [n, C, *size] inputs
    g: Tensor,  # [n, O, *size out] output-gradients
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    *,
    backend: str = "auto",
) -> Tensor:  # [n, O, C / groups, *kernel]
    """G_i, the gradient of the weight from example i alone

    `conv_instance` where scores are taken from many uses at once, of training and validation examples alike: for
    weights so small that a launch costs more than their product. The strides of G are those in which the backend makes
    it.
    """
    return call(_OP, backend, x, g, kernel, stride, padding, dilation, groups)


def _outputs(x, g, kernel, stride, padding, dilation, groups) -> Tensor:
    if x.device.type == "cuda":
        return convolution.empty_instances(x, len(x), g.shape[1], groups, kernel)
    return x.new_empty(len(x), g.shape[1], x.shape[1] // groups, *kernel, dtype=checks.sums(x.dtype))


_launch = launcher(_OP)


def _triton(x, g, *options) -> Tensor:
    G = _launch(x, g, *options)
    return G if G.device.type == "cuda" else G.contiguous()  # under its interpreter: as the reference leaves it


def _sample(whole: Whole) -> tuple:
    x, g, _, *options = convolution.sample(whole)
    return x, g, *options


register(
    conv_gradients,
    letters={"x": "nC*", "g": "nO*"},
    rules=lambda x, g, *options: convolution.geometry(_OP, x, *options, g=g),
    outputs=_outputs,
    sample=_sample,
    order={"cuda": ("triton",)},
    triton=_triton,
)
