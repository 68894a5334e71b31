"""What the ops of a convolution have in common: the checks of their geometry, in the words of csrc/conv_checks.h, and
the memory layout of per-example weights.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import checks
from .sample import Whole

Ints = Sequence[int]
LINE = 64  # bytes of a cache line: on the CPU the output channels of a per-example weight begin on one


def weight(op: str, x: Tensor, V: Tensor, groups: int) -> None:
    """V is a weight [O, C / groups, *kernel] of as many dimensions as x [n, C, *size]."""
    checks.integer(op, 1, groups=groups)
    _dimensions(op, x, "V", V)
    _divides(op, groups, x=x)
    if V.shape[1] != x.shape[1] // groups:
        rule = f"V must have C / groups input channels, {x.shape[1] // groups}"
        raise ValueError(f"fastrw.{op}: {rule}, got {V.shape[1]}")


def geometry(
    op: str, x: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int, **output: Tensor
) -> None:
    """g [n, O, *size out], or y, has the sizes of a convolution of x [n, C, *size]."""
    ((name, g),) = output.items()
    _dimensions(op, x, name, g)
    if not isinstance(kernel, torch.Size):  # that of a weight: its sizes are symbols where torch.compile traces
        checks.integers(op, 1, x.ndim - 2, kernel=kernel)
    checks.integers(op, 1, x.ndim - 2, stride=stride, dilation=dilation)
    checks.integers(op, 0, x.ndim - 2, padding=padding)
    checks.integer(op, 1, groups=groups)
    _divides(op, groups, x=x, **output)
    sizes = []
    for size, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True):
        room = size + 2 * p - d * (k - 1) - 1
        if room < 0:
            rule = "the kernel must fit into the padded x"
            raise ValueError(f"fastrw.{op}: {rule}, got {list(kernel)} and shape {tuple(x.shape)}")
        sizes.append(room // s + 1)
    if sizes != list(g.shape[2:]):
        rule = f"{name} must have the sizes of the convolution's output"
        raise ValueError(f"fastrw.{op}: {rule}, {sizes}, got {list(g.shape[2:])}")


def cpp_refusal(x: Tensor, *args) -> str | None:
    """Why the C++ kernels cannot serve: they handle one and two dimensions."""
    return None if x.ndim < 5 else "serves 1 and 2 dimensions after [n, C], got 3"


def empty_instances(x: Tensor, n: int, O: int, groups: int, kernel: Ints) -> Tensor:
    """Room for per-example weights [n, O, C / groups, *kernel] in the dtype of sums.

    On the CPU its memory is [n, *kernel, C / groups, O], as the kernels make it, O padded to whole lines; on a GPU
    [n, O, *kernel, C / groups].
    """
    dtype, c = checks.sums(x.dtype), x.shape[1] // groups
    if x.device.type != "cpu":
        like = torch.empty(n, O, *kernel, c, device="meta").movedim(-1, 2)
    else:
        line = LINE // dtype.itemsize
        padded = torch.empty(n, *kernel, c, -(-O // line) * line, device="meta")
        last = len(kernel) + 1
        like = padded[..., :O].permute(0, last + 1, last, *range(1, last))
    # no view: forward AD gives an output's tangent to its base
    return torch.empty_strided(like.shape, like.stride(), dtype=dtype, device=x.device)


def sample(whole: Whole) -> tuple[Tensor, Tensor, Tensor, list, list, list, list, int]:
    """x, g, V, kernel, stride, padding, dilation, groups: two groups, an odd padding, 17 channels."""
    n, groups, c, o = 5, 2, 3, 17
    x, g, V = whole(n, groups * c, 9, 7), whole(n, groups * o, 5, 5), whole(groups * o, c, 3, 2)
    return x, g, V, [3, 2], [2, 1], [1, 0], [1, 2], groups


def _dimensions(op: str, x: Tensor, name: str, other: Tensor) -> None:
    if not 3 <= x.ndim <= 5:
        rule = "x must have 1 to 3 dimensions after [n, C]"
        raise ValueError(f"fastrw.{op}: {rule}, got shape {tuple(x.shape)}")
    if other.ndim != x.ndim:
        rule = f"{name} must have as many dimensions as x"
        raise ValueError(f"fastrw.{op}: {rule}, got shape {tuple(other.shape)} and {tuple(x.shape)}")


def _divides(op: str, groups: int, **given: Tensor) -> None:
    for name, x in given.items():
        if x.shape[1] % groups:
            rule = f"groups must divide the channels of {name}"
            raise ValueError(f"fastrw.{op}: {rule}, got {groups} and {x.shape[1]}")


def crowded(V: Tensor, y: Tensor, limit: int) -> bool:
    """Do more than `limit` weights share a position of the output y [n, O, ...]? On a CPU, torch's layouts win then."""
    return y.device.type == "cpu" and V.numel() * y.shape[1] * len(y) > limit * y.numel()
