"""conv_outer in Triton: sum_i w_i G_i of a convolution, by whichever moves less memory.

Either one kernel writes w_i g_i and x_i, both 0 where w_i is 0, and cuDNN takes the weight gradient in their own dtype.
Or the kernel of conv_instance sums chunks of examples, weighted, and the chunks are added in a second pass. Without
weights cuDNN reads x and g as they are.

The first kernel takes an example as a row of adjacent elements, whatever the order of its dimensions. A program owns
BLOCK elements of x or of g. An example of weight 0 is not read. Sizes in units of 16 bytes where every row allows it.
"""

from collections.abc import Callable, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrw.kernels.common import cdiv, config_type, sm_count, unit
from fastrw.kernels.conv_instance import sum_of_chunks
from fastrw.kernels.convolution import along_channels, convolution, copied_as
from fastrw.kernels.plans import Launch, planned
from fastrw.kernels.precision import of_convolutions

Config = config_type("BLOCK")
CONFIG = Config(2048, 4, 1)


@triton.jit(do_not_specialize=["size_x", "size_g", "x_n", "g_n"], do_not_specialize_on_alignment=["w_ptr"])
def _mask_and_scale_kernel(
    x_ptr,  # [n, size_x]
    g_ptr,  # [n, size_g]
    w_ptr,  # [n]
    x_out_ptr,  # [n, size_x], adjacent rows
    g_out_ptr,  # [n, size_g], adjacent rows
    size_x,  # in units of UNIT, as are all of these
    size_g,
    x_n,
    g_n,
    UNIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    size_x, size_g = size_x.to(tl.int64) * UNIT, size_g.to(tl.int64) * UNIT
    x_n, g_n = x_n.to(tl.int64) * UNIT, g_n.to(tl.int64) * UNIT
    blocks_x, here = tl.cdiv(size_x, BLOCK), tl.arange(0, BLOCK)
    blocks = blocks_x + tl.cdiv(size_g, BLOCK)
    i, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    w = tl.load(w_ptr + i).to(tl.float32)
    if block < blocks_x:
        at = block * BLOCK + here
        x = tl.load(x_ptr + i * x_n + at, mask=at < tl.where(w != 0, size_x, 0), other=0.0)
        tl.store(x_out_ptr + i * size_x + at, x, mask=at < size_x)
    else:
        at = (block - blocks_x) * BLOCK + here
        g = tl.load(g_ptr + i * g_n + at, mask=at < tl.where(w != 0, size_g, 0), other=0.0).to(tl.float32) * w
        tl.store(g_out_ptr + i * size_g + at, g.to(g_out_ptr.dtype.element_ty), mask=at < size_g)


@planned(of_convolutions)
def launch_conv_outer(x: Tensor, g: Tensor, w: Tensor | None, kernel: Sequence[int], *options) -> Callable[..., Tensor]:
    """[O, C / groups, *kernel] float32, of float32, bfloat16 or float16 x and g.

    options: stride, padding and dilation, a number a dimension, and groups.
    """
    shape = (g.shape[1], x.shape[1] // options[-1], *kernel)
    if g.numel() == 0 or x.numel() == 0:
        return lambda x, *rest: x.new_zeros(shape, dtype=torch.float32)
    on_gpu = x.device.type != "cpu"  # else Triton interprets, and there is no cuDNN
    if w is None and on_gpu:
        return lambda x, g, *rest: _weight_gradient(x, g, shape, *options)
    it = along_channels(convolution(x, g, kernel, *options))
    size, added = sum_of_chunks(
        *(it, (0, len(x)), kernel, sm_count(x.device), of_convolutions(x.dtype)), weighted=w is not None
    )
    if on_gpu and 4 * size > (x.numel() + g.numel()) * x.element_size():
        return _masked(x, g, shape, options)
    copy_x, copy_g = copied_as(x, it.x), copied_as(g, it.g)

    def serve(x: Tensor, g: Tensor, w: Tensor | None, *rest) -> Tensor:
        x = x if copy_x is None else copy_x(x)
        g = g if copy_g is None else copy_g(g)
        return added(x, g, None if w is None else w.contiguous())

    return serve


def _masked(x: Tensor, g: Tensor, shape: tuple, options: Sequence) -> Callable[..., Tensor]:
    (rows_x, like_x), (rows_g, like_g) = _rows(x), _rows(g)
    lie = rows_x.data_ptr() == x.data_ptr(), rows_g.data_ptr() == g.data_ptr()
    u, (n, size_x), size_g = unit(rows_x, rows_g), rows_x.shape, rows_g.shape[1]
    grid = n * (cdiv(size_x, CONFIG.BLOCK) + cdiv(size_g, CONFIG.BLOCK))
    sizes = (size_x, size_g, rows_x.stride(0), rows_g.stride(0))
    fill = Launch(_mask_and_scale_kernel, (grid,), CONFIG, *(size // u for size in sizes), u)

    def serve(x: Tensor, g: Tensor, w: Tensor, *rest) -> Tensor:
        masked, scaled = x.new_empty_strided(*like_x), g.new_empty_strided(*like_g)
        fill(x if lie[0] else _rows(x)[0], g if lie[1] else _rows(g)[0], w.contiguous(), masked, scaled)
        return _weight_gradient(masked, scaled, shape, *options)

    return serve


def _rows(x: Tensor) -> tuple[Tensor, tuple]:
    """x [n, ...] as a matrix [n, elements], copied only where an example is not dense; and the shape and strides of x
    in adjacent rows of it."""
    order = sorted(range(1, x.ndim), key=lambda dim: x.stride(dim), reverse=True)
    turned = x.permute(0, *order)
    rows = turned.flatten(1)
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    back = sorted(range(x.ndim), key=lambda k: (0, *order)[k])
    like = torch.empty(turned.shape, device="meta").permute(back)
    return rows, (tuple(x.shape), like.stride())


def _weight_gradient(x: Tensor, g: Tensor, shape: tuple, stride, padding, dilation, groups: int) -> Tensor:
    """cuDNN's, summed over examples."""
    options = (list(stride), list(padding), list(dilation), False, [0] * len(stride), groups)
    found = torch.ops.aten.convolution_backward(g, x, x.new_empty(shape), None, *options, [False, True, False])[1]
    return found.float()
