"""What the two convolution kernels share: a convolution as a product of matrices that are never formed.

A position is an element of the output, a tap one of the kernel; together they select an element of x, or none. One
and two dimensions are three with leading ones. "Last" is a layout whose channels are contiguous, aligned to 16 bytes:
there a tile is loaded along channels. Else it is loaded along positions, whatever the strides.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrw.kernels.common import cdiv, unit

Ints = Sequence[int]
COPY_FROM = 8  # reads of an element of x


class Convolution(NamedTuple):
    """x, g and the numbers of one convolution."""

    x: Tensor  # [n, C, D, H, W]
    g: Tensor  # [n, O, S]
    taps: int
    out: tuple[int, int, int]
    kernel: tuple[int, int, int]
    stride: tuple[int, int, int]
    padding: tuple[int, int, int]
    dilation: tuple[int, int, int]
    groups: int
    unit: int  # elements in 16 bytes where both are "last", else 1

    @property
    def channels(self) -> tuple[int, int]:
        """C and O of one group."""
        return self.x.shape[1] // self.groups, self.g.shape[1] // self.groups

    def arguments(self) -> tuple[int, ...]:
        """What both kernels are given, in the order in which they name it."""
        (C, O), u = self.channels, self.unit
        x_n, x_c, *x_space = self.x.stride()
        g_n, g_o, g_s = self.g.stride()
        return (
            *(C // u, O // u, self.g.shape[2], *self.x.shape[2:]),
            *(self.out[1] * self.out[2], self.out[2], self.taps, self.kernel[1] * self.kernel[2], self.kernel[2]),
            *(*self.stride, *self.padding, *self.dilation),
            *(x_n // u, x_c, *(stride // u for stride in x_space), g_n // u, g_o, g_s // u),
        )


INTEGERS = [
    *("C", "O", "S", "D", "H", "W", "out_hw", "out_w", "taps", "kernel_hw", "kernel_w"),
    *("stride_d", "stride_h", "stride_w", "padding_d", "padding_h", "padding_w"),
    *("dilation_d", "dilation_h", "dilation_w", "x_n", "x_c", "x_d", "x_h", "x_w", "g_n", "g_o", "g_s"),
]


def convolution(
    x: Tensor, g: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Convolution:
    """The convolution in three dimensions, copied only where a tile of it is out of the reach of 32-bit offsets."""

    def three(ints: Ints, fill: int) -> tuple[int, int, int]:
        return (*[fill] * (3 - len(ints)), *ints)

    out = three(g.shape[2:], 1)
    while x.ndim < 5:
        x = x.unsqueeze(2)
    g = g.flatten(2)
    x, g = (_near(t, g.shape[2]) for t in (x, g))
    found = Convolution(
        x, g, prod(kernel), out, three(kernel, 1), three(stride, 1), three(padding, 0), three(dilation, 1), groups, 1
    )
    aligned = _last(x) and _last(g) and _units_of_channels(found)
    return found._replace(unit=16 // x.element_size()) if aligned else found


def along_channels(it: Convolution) -> Convolution:
    """The convolution, x and g copied to be "last" where that pays.

    A tile along positions takes an address, a mask and a load for each element, and takes each element of x anew for
    every tap and every 32 output channels; along channels that is a fourth or an eighth of the work. A copy reads and
    writes once: it pays from COPY_FROM of these reads on, however many the channels.
    """
    reads = it.g.shape[2] * it.taps * cdiv(it.channels[1], 32)
    if it.unit > 1 or not _units_of_channels(it) or reads < COPY_FROM * prod(it.x.shape[2:]):
        return it
    x, g = (t if _last(t) else to_channels_last(t) for t in (it.x, it.g))
    return it._replace(x=x, g=g, unit=16 // x.element_size())


def _last(x: Tensor) -> bool:
    """Whether channels [n, C, ...] are contiguous, aligned to 16 bytes."""
    return x.stride(1) == 1 and unit(x.movedim(1, -1)) > 1


def _units_of_channels(it: Convolution) -> bool:
    """Whether the channels of a group are whole units of 16 bytes."""
    return all(size * it.x.element_size() % 16 == 0 for size in it.channels)


def _near(x: Tensor, S: int) -> Tensor:
    """x, copied where 32-bit offsets do not reach across the examples that 128 positions belong to."""
    reach = (127 // max(S, 1) + 1) * x.stride(0)
    reach += sum((size - 1) * stride for size, stride in zip(x.shape[1:], x.stride()[1:], strict=True))
    return x if reach < 2**31 else x.contiguous()


def to_channels_last(x: Tensor) -> Tensor:
    """A copy of x [n, C, ...] in channels-last memory."""
    if x.ndim == 3:
        return x.mT.clone(memory_format=torch.contiguous_format).mT
    return x.clone(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)


def copied_as(x: Tensor, used: Tensor) -> Callable[[Tensor], Tensor] | None:
    """How `used`, which holds x [n, C, ...], is copied from it; None where it is x."""
    if used.data_ptr() == x.data_ptr():
        return None
    return torch.Tensor.contiguous if used.is_contiguous() else to_channels_last


def block_of_channels(channels: int, block: int) -> int:
    """How many of a block's columns are channels of one tap; the rest is further taps."""
    return min(triton.next_power_of_2(max(channels, 1)), block)


@triton.jit
def corner(position, out, stride, padding):
    """The place in x of the first tap of a position; out: the elements of a plane and of a row of the output."""
    out_hw, out_w = out
    d = position // out_hw * stride[0] - padding[0]
    h = position % out_hw // out_w * stride[1] - padding[1]
    w = position % out_w * stride[2] - padding[2]
    return d, h, w


@triton.jit
def step_of(tap, kernel, dilation):
    """The offset of a tap from the first one; kernel: the taps of a plane and of a row."""
    kernel_hw, kernel_w = kernel
    d = tap // kernel_hw * dilation[0]
    h = tap % kernel_hw // kernel_w * dilation[1]
    w = tap % kernel_w * dilation[2]
    return d, h, w


@triton.jit
def inside(d, h, w, size):
    """Whether a place is in x. One comparison a dimension: a negative number is large as an unsigned one."""
    D, H, W = size
    return (
        (d.to(tl.uint32) < D.to(tl.uint32)) & (h.to(tl.uint32) < H.to(tl.uint32)) & (w.to(tl.uint32) < W.to(tl.uint32))
    )
