"""conv_instance in Triton: the weight gradient G_i of each example of a convolution, and s_i = <G_i, V>.

An implicit product per example: rows are the output channels of one group; columns are block_c channels of as many taps
as fill a tile; the sum runs over positions. The tile of G_i is multiplied by that of V while in registers, and stored
[n, O, taps, C]. Sums of tiles [tiles, n] are added in a second pass, in a fixed order. V = sum_j G_j of the validation
examples is the same tile, summed over a chunk of them; chunks are added in a second pass.

Addressing as in gram_dot.py, the 64-bit base that of the example. Positions past S repeat the last one of x, and are
multiplied by a g of 0.
"""

from collections.abc import Sequence
from math import prod

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrw.kernels.common import choose, config_type, family, launch, sm_count, steps_per_program
from fastrw.kernels.convolution import (
    INTEGERS,
    Convolution,
    along_channels,
    block_of_channels,
    convolution,
    corner,
    inside,
    step_of,
)
from fastrw.kernels.precision import of_convolutions

Config = config_type("BLOCK_O", "BLOCK_N", "BLOCK_S")  # output channels, taps and channels, positions a step
# By family, see common.py; largest first. "narrow" serves channels that are not contiguous, too.
CONFIGS = {
    "half": (Config(64, 128, 64, 8, 4), Config(16, 64, 64, 4, 4)),
    "tf32": (Config(64, 64, 32, 8, 2), Config(16, 64, 32, 8, 3)),
    "ieee": (Config(64, 64, 16, 8, 2), Config(16, 64, 16, 4, 2)),
    "narrow": (Config(32, 32, 32, 4, 2), Config(16, 64, 32, 4, 2)),
}


def choose_config(n: int, O: int, columns: int, family: str, sm_count: int) -> Config:
    """The largest tile that is not half empty and of which, over all examples, every SM gets one."""
    return choose(CONFIGS[family], O, columns, triton.cdiv(sm_count, max(n, 1)))


@triton.jit
def _columns(tile, C, taps, block_c, BLOCK_N: tl.constexpr):
    """The channel and tap of each column of a tile, and which of them there are."""
    blocks_c = tl.cdiv(C, block_c)
    here = tl.arange(0, BLOCK_N)
    c = tile % blocks_c * block_c + here % block_c
    tap = tile // blocks_c * (BLOCK_N // block_c) + here // block_c
    return c, tap, (c < C) & (tap < taps)


@triton.jit
def _add(
    G,
    x_ptr,  # of the group
    g_ptr,  # of the tile's first output channel
    begin,  # of the examples
    end,
    mask_o,
    c,
    tap,
    mask_n,
    shape,
    kernel,
    stride,
    padding,
    dilation,
    strides,
    LAST: tl.constexpr,
    BLOCK_S: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """G + sum_s g_s x_s^T of each example, for one tile. One loop over all steps: two would spill."""
    o_here, s_here = tl.arange(0, G.shape[0]), tl.arange(0, BLOCK_S)
    S, D, H, W, out_hw, out_w = shape
    x_n, x_c, x_d, x_h, x_w, g_n, g_o, g_s = strides
    dd, dh, dw = step_of(tap, kernel, dilation)
    x_columns = dd * x_d + dh * x_h + dw * x_w + c * x_c
    steps = tl.cdiv(S, BLOCK_S)
    for step in range(0, (end - begin) * steps):
        example, start = (begin + step // steps).to(tl.int64), step % steps * BLOCK_S
        x_here_ptr, g_here_ptr = x_ptr + example * x_n, g_ptr + example * g_n
        s = start + tl.minimum(s_here, S - 1 - start)
        mask_s = s_here < S - start
        d, h, w = corner(s, (out_hw, out_w), stride, padding)
        x_rows = d * x_d + h * x_h + w * x_w
        if LAST:
            here = inside(d[:, None] + dd[None, :], h[:, None] + dh[None, :], w[:, None] + dw[None, :], (D, H, W))
            x = tl.load(x_here_ptr + (x_rows[:, None] + x_columns[None, :]), mask=here & mask_n[None, :], other=0.0)
            mask_g = mask_s[:, None] & mask_o[None, :]
            g = tl.trans(tl.load(g_here_ptr + ((s * g_s)[:, None] + o_here[None, :]), mask=mask_g, other=0.0))
        else:
            here = inside(d[None, :] + dd[:, None], h[None, :] + dh[:, None], w[None, :] + dw[:, None], (D, H, W))
            x = tl.load(x_here_ptr + (x_rows[None, :] + x_columns[:, None]), mask=here & mask_n[:, None], other=0.0)
            x = tl.trans(x)
            mask_g = mask_o[:, None] & mask_s[None, :]
            g = tl.load(g_here_ptr + ((o_here * g_o)[:, None] + (s * g_s)[None, :]), mask=mask_g, other=0.0)
        G = tl.dot(g, x, G, input_precision=PRECISION)
    return G


@triton.jit(do_not_specialize=["n", "first", "chunk", "groups", "block_c", *INTEGERS, "V_o", "V_c", "V_tap"])
def _conv_instance_kernel(
    x_ptr,  # [n, C, D, H, W]
    g_ptr,  # [n, O, S]
    V_ptr,  # [O, C, taps], unless SUM
    partial_ptr,  # [tiles of all groups, n], unless SUM
    G_ptr,  # [n, O, taps, C]; where SUM, a chunk of examples each
    n,  # examples
    first,  # of them
    chunk,  # examples a program sums; 1 unless SUM
    groups,
    block_c,  # channels of one tap in a tile; in units of UNIT, as are C, O and the strides but those of channels and V
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
    SUM: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_S: tl.constexpr,
    PRECISION: tl.constexpr,
):
    C, O, block_c, x_n, g_n = C * UNIT, O * UNIT, block_c * UNIT, x_n.to(tl.int64) * UNIT, g_n.to(tl.int64) * UNIT
    x_d, x_h, x_w, g_s = x_d * UNIT, x_h * UNIT, x_w * UNIT, g_s * UNIT
    if UNIT > 1:
        x_c, g_o = 1, 1
    tiles_o = tl.cdiv(O, BLOCK_O)
    tiles_n = tl.cdiv(taps, BLOCK_N // block_c) * tl.cdiv(C, block_c)
    tiles = groups * tiles_o * tiles_n
    tile, i = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    c, tap, mask_n = _columns(tile % tiles_n, C, taps, block_c, BLOCK_N)
    group, o_start = tile // tiles_n // tiles_o, tile // tiles_n % tiles_o * BLOCK_O
    o_first = group * O + o_start
    o_here = tl.arange(0, BLOCK_O)
    mask_o = o_here < O - o_start
    x_ptr += first * x_n + (group * C).to(tl.int64) * x_c
    g_ptr += first * g_n + o_first.to(tl.int64) * g_o
    G = tl.zeros((BLOCK_O, BLOCK_N), tl.float32)
    shape, kernel = (S, D, H, W, out_hw, out_w), (kernel_hw, kernel_w)
    stride, padding = (stride_d, stride_h, stride_w), (padding_d, padding_h, padding_w)
    dilation, strides = (dilation_d, dilation_h, dilation_w), (x_n, x_c, x_d, x_h, x_w, g_n, g_o, g_s)
    G = _add(
        *(G, x_ptr, g_ptr, i * chunk, tl.minimum(i * chunk + chunk, n), mask_o, c, tap, mask_n),
        *(shape, kernel, stride, padding, dilation, strides, UNIT > 1, BLOCK_S, PRECISION),
    )
    mask = mask_o[:, None] & mask_n[None, :]
    if not SUM:
        V_ptr += o_first.to(tl.int64) * V_o
        V = tl.load(V_ptr + ((o_here * V_o)[:, None] + (tap * V_tap + c * V_c)[None, :]), mask=mask, other=0.0)
        tl.store(partial_ptr + tile.to(tl.int64) * n + i, tl.sum(G * V.to(tl.float32)))
    G_ptr += (i.to(tl.int64) * groups * O + o_first) * taps * C
    tl.store(G_ptr + ((o_here * taps * C)[:, None] + (tap * C + c)[None, :]), G, mask=mask)


def run_conv_instance(
    it: Convolution,
    examples: tuple[int, int],  # from, to
    V: Tensor | None,  # [O, C / groups, taps]; None: G is summed over chunks of examples
    partial: Tensor | None,  # [tiles of all groups, examples] float32, written where V is given
    G: Tensor,  # [examples, O, taps, C / groups] float32, written; without V a chunk of examples each
    precision: str,
    config: Config,
) -> None:
    """Fill G, and partial with the share of each tile in each s_i."""
    first, n = examples[0], examples[1] - examples[0]
    (C, O), parts = it.channels, G.shape[0]
    tiles = it.groups * triton.cdiv(O, config.BLOCK_O) * _tiles(C, it.taps, config)
    launch(
        *(_conv_instance_kernel, (tiles * parts,), config),
        *(it.x, it.g, V, partial, G),
        *(n, first, triton.cdiv(n, max(parts, 1)), it.groups),
        *(block_of_channels(C, config.BLOCK_N) // it.unit, *it.arguments()),
        *((0, 0, 0) if V is None else V.stride()),
        *(it.unit, V is None),
        PRECISION=precision,
    )


def _tiles(C: int, taps: int, config: Config) -> int:
    """Tiles that hold all channels and taps of a group."""
    block_c = block_of_channels(C, config.BLOCK_N)
    return triton.cdiv(taps, config.BLOCK_N // block_c) * triton.cdiv(C, block_c)


def launch_conv_instance(
    x: Tensor, g: Tensor, n: int, V: Tensor | None, kernel: Sequence[int], *options
) -> tuple[Tensor, Tensor, Tensor]:
    """s [n], G [n, O, C / groups, *kernel] and V, float32, of float32, bfloat16 or float16 x and g.

    options: stride, padding and dilation, a number a dimension, and groups.
    """
    groups, precision = options[-1], of_convolutions(x.dtype)
    N, O, C, taps, available = x.shape[0], g.shape[1], x.shape[1] // groups, prod(kernel), sm_count(x.device)
    G = x.new_empty(n, O, taps, C, dtype=torch.float32)
    it = along_channels(convolution(x, g, kernel, *options))
    kind = family(x, precision=precision, aligned=it.unit > 1)

    def tiles(config: Config) -> int:
        return groups * triton.cdiv(O // groups, config.BLOCK_O) * _tiles(C, taps, config)

    if V is None:
        config = choose_config(N - n, O // groups, C * taps, kind, available)
        parts = triton.cdiv(N - n, steps_per_program(N - n, tiles(config), available))
        sums = x.new_empty(parts, O, taps, C, dtype=torch.float32)
        if sums.numel():
            run_conv_instance(it, (n, N), None, None, sums, precision, config)
        V = sums.sum(0).transpose(1, 2).unflatten(2, kernel)
    V = V.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    config = choose_config(n, O // groups, C * taps, kind, available)
    partial = x.new_empty(tiles(config), n, dtype=torch.float32)
    if G.numel():
        run_conv_instance(it, (0, n), V.flatten(2), partial, G, precision, config)
    return partial.sum(0), G.transpose(2, 3).unflatten(3, kernel), V
