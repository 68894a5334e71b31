"""conv_dot in Triton: s_i = <g_i, conv(x, V)_i + v_b>, a convolution whose result is dotted and never written.

An implicit product: rows are positions of the output, over all examples; columns are the output channels of one group;
the sum runs over taps and channels, block_c channels of as many taps as fill a step. The tile starts at v_b, is
multiplied by g, and its row sums [tiles, n, S] are added in a second pass, in a fixed order. Rows are not split at
examples: a tile is full whatever the size of the output.

Addressing as in gram_dot.py: one 64-bit base a tile, that of its first row's example.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrw.kernels.common import cdiv, choose, config_type, family, sm_count
from fastrw.kernels.convolution import (
    INTEGERS,
    Convolution,
    Ints,
    along_channels,
    block_of_channels,
    convolution,
    copied_as,
    corner,
    inside,
    step_of,
    to_channels_last,
)
from fastrw.kernels.dense import channels_last
from fastrw.kernels.plans import Launch, planned
from fastrw.kernels.precision import of_convolutions
from fastrw.kernels.products import dot

Config = config_type("BLOCK_M", "BLOCK_O", "BLOCK_K")  # positions, output channels, taps and channels a step
# By family, see common.py; largest first. "narrow" serves channels that are not contiguous, too.
CONFIGS = {
    "half": (Config(128, 128, 64, 8, 3), Config(128, 64, 64, 4, 3), Config(128, 16, 64, 4, 3)),
    "wide": (Config(128, 64, 32, 8, 3), Config(128, 16, 32, 8, 3)),
    "tf32": (Config(128, 64, 32, 8, 3), Config(128, 16, 32, 4, 3)),
    "ieee": (Config(128, 64, 32, 8, 2), Config(128, 16, 32, 4, 2)),
    "narrow": (Config(64, 64, 32, 8, 2), Config(64, 16, 32, 8, 2)),
}


def choose_config(rows: int, O: int, family: str, sm_count: int) -> Config:
    """The largest tile that is not half empty and of which every SM gets one."""
    return choose(CONFIGS[family], rows, O, sm_count)


@triton.jit(
    do_not_specialize=["rows", "groups", "block_c", *INTEGERS, "V_o", "V_c", "V_tap"],
    do_not_specialize_on_alignment=["v_b_ptr"],
)
def _conv_dot_kernel(
    x_ptr,  # [n, C, D, H, W]
    g_ptr,  # [n, O, S]
    V_ptr,  # [O, C, taps]
    v_b_ptr,  # [O], where BIAS
    partial_ptr,  # [tiles of O, rows]
    rows,  # n S
    groups,
    block_c,  # channels of one tap in a step; in units of UNIT, as are C, O and the strides but those of channels
    C,  # of a group
    O,
    S,
    D,
    H,
    W,
    out_hw,
    out_w,
    taps,
    kernel_hw,
    kernel_w,
    stride_d,
    stride_h,
    stride_w,
    padding_d,
    padding_h,
    padding_w,
    dilation_d,
    dilation_h,
    dilation_w,
    x_n,
    x_c,
    x_d,
    x_h,
    x_w,
    g_n,
    g_o,
    g_s,
    V_o,
    V_c,
    V_tap,
    UNIT: tl.constexpr,  # more than 1: channels are contiguous
    BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    C, O, block_c, V_o, V_tap = C * UNIT, O * UNIT, block_c * UNIT, V_o * UNIT, V_tap * UNIT
    x_n, x_d, x_h, x_w, g_n, g_s = x_n * UNIT, x_d * UNIT, x_h * UNIT, x_w * UNIT, g_n * UNIT, g_s * UNIT
    if UNIT > 1:
        x_c, g_o, V_c = 1, 1, 1
    tiles_o, blocks_c, taps_here = tl.cdiv(O, BLOCK_O), tl.cdiv(C, block_c), BLOCK_K // block_c
    tiles = groups * tiles_o
    tile = tl.program_id(0) % tiles
    group, o_start = tile // tiles_o, tile % tiles_o * BLOCK_O
    row_start = (tl.program_id(0) // tiles).to(tl.int64) * BLOCK_M
    example = row_start // S
    row_here, o_here, k_here = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_O), tl.arange(0, BLOCK_K)
    position = (row_start - example * S).to(tl.int32) + tl.minimum(row_here, (rows - 1 - row_start).to(tl.int32))
    i, position = position // S, position % S
    stride, padding = (stride_d, stride_h, stride_w), (padding_d, padding_h, padding_w)
    d, h, w = corner(position, (out_hw, out_w), stride, padding)
    x_ptr += example * x_n + (group * C).to(tl.int64) * x_c
    V_ptr += (group * O + o_start).to(tl.int64) * V_o
    o_near = tl.minimum(o_here, O - 1 - o_start)
    x_rows, V_rows = i * x_n + d * x_d + h * x_h + w * x_w, o_near * V_o
    product = tl.zeros((BLOCK_M, BLOCK_O), tl.float32)
    if BIAS:
        product += tl.load(v_b_ptr + group * O + o_start + o_near).to(tl.float32)[None, :]
    for step in range(0, tl.cdiv(taps, taps_here) * blocks_c):
        c = step % blocks_c * block_c + k_here % block_c
        tap = step // blocks_c * taps_here + k_here // block_c
        dd, dh, dw = step_of(tap, (kernel_hw, kernel_w), (dilation_d, dilation_h, dilation_w))
        x_columns = dd * x_d + dh * x_h + dw * x_w + c * x_c
        mask_k = (c < C) & (tap < taps)
        if UNIT > 1:
            here = inside(d[:, None] + dd[None, :], h[:, None] + dh[None, :], w[:, None] + dw[None, :], (D, H, W))
            x = tl.load(x_ptr + (x_rows[:, None] + x_columns[None, :]), mask=here & mask_k[None, :], other=0.0)
        else:
            here = inside(d[None, :] + dd[:, None], h[None, :] + dh[:, None], w[None, :] + dw[:, None], (D, H, W))
            x = tl.load(x_ptr + (x_rows[None, :] + x_columns[:, None]), mask=here & mask_k[:, None], other=0.0)
            x = tl.trans(x)
        V_columns = tap * V_tap + c * V_c
        V = tl.load(V_ptr + (V_rows[:, None] + V_columns[None, :]), mask=mask_k[None, :], other=0.0)
        product = dot(x, tl.trans(V), product, PRECISION)
    g_ptr += example * g_n + (group * O + o_start).to(tl.int64) * g_o
    g_rows, mask_o = i * g_n + position * g_s, o_here < O - o_start
    if UNIT > 1:
        g = tl.load(g_ptr + (g_rows[:, None] + o_here[None, :]), mask=mask_o[None, :], other=0.0)
    else:
        g = tl.trans(tl.load(g_ptr + (g_rows[None, :] + (o_here * g_o)[:, None]), mask=mask_o[:, None], other=0.0))
    s = tl.sum(product * g.to(tl.float32), axis=1)
    tl.store(partial_ptr + tile.to(tl.int64) * rows + row_start + row_here, s, mask=row_here < rows - row_start)


def _launch(it: Convolution, V: Tensor, bias: bool, tiles: int, precision: str, config: Config) -> Launch:
    """For x, g, V [O, C / groups, taps], v_b [O] or None, and partial [tiles, n S] float32, which is written: its row i
    holds the sums over the output channels of tile i of all groups'."""
    rows, u = it.g.shape[0] * it.g.shape[2], it.unit
    V_o, V_c, V_tap = V.stride()
    return Launch(
        *(_conv_dot_kernel, (cdiv(rows, config.BLOCK_M) * tiles,), config),
        *(rows, it.groups, block_of_channels(it.channels[0], config.BLOCK_K) // u, *it.arguments()),
        *(V_o // u, V_c, V_tap // u),
        *(u, bias),
        PRECISION=precision,
    )


def run_conv_dot(it: Convolution, V: Tensor, v_b: Tensor | None, partial: Tensor, *how) -> None:
    """Fill partial [tiles of O over all groups, n S]. how: precision and config."""
    _launch(it, V, v_b is not None, partial.shape[0], *how)(it.x, it.g, V, v_b, partial)


@planned(of_convolutions)
def launch_conv_dot(
    x: Tensor, g: Tensor, V: Tensor, v_b: Tensor | None, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Callable[..., Tensor]:
    """s [n] float32 of float32, bfloat16 or float16 x and g; V and v_b of the same dtype or float32."""
    n, available, precision = x.shape[0], sm_count(x.device), of_convolutions(x.dtype)
    if g.numel() == 0:
        return lambda x, *rest: x.new_zeros(n, dtype=torch.float32)
    it = along_channels(convolution(x, g, V.shape[2:], stride, padding, dilation, groups))
    flat = V.flatten(2)
    if it.unit > 1 and not channels_last(flat):
        flat = to_channels_last(flat)
    copy_x, copy_g, copy_V = copied_as(x, it.x), copied_as(g, it.g), copied_as(V, flat)
    S, O = it.g.shape[2], it.channels[1]
    config = choose_config(n * S, O, family(x, V, precision=precision, aligned=it.unit > 1), available)
    tiles = groups * cdiv(O, config.BLOCK_O)
    fill = _launch(it, flat, v_b is not None, tiles, precision, config)

    def serve(x: Tensor, g: Tensor, V: Tensor, v_b: Tensor | None, *options) -> Tensor:
        partial = x.new_empty(tiles, n, S, dtype=torch.float32)
        x = x if copy_x is None else copy_x(x)
        g = g if copy_g is None else copy_g(g)
        V = V if copy_V is None else copy_V(V)
        fill(x, g, V, None if v_b is None else v_b.contiguous(), partial)
        return partial.sum((0, 2))

    return serve
