"""conv_instance in Triton: the weight gradient G_i of each example of a convolution, and s_i = <G_i, V>.

An implicit product per example: rows are the output channels of one group; columns are block_c channels of as many taps
as fill a tile; the sum runs over positions. The tile of G_i is multiplied by that of V while in registers, and stored
[n, O, taps, C]. Sums of tiles [tiles, n] are added in a second pass, in a fixed order. V = sum_j G_j of the validation
examples is the same tile, summed over a chunk of them; chunks are added in a second pass. So is sum_i w_i G_i: g is
multiplied by w_i, an example of weight 0 is not read.

Addressing as in gram_dot.py, the 64-bit base that of the example. Positions past S repeat the last one of x, and are
multiplied by a g of 0.
"""

from collections.abc import Callable, Sequence
from math import prod

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrw.kernels.common import cdiv, choose, config_type, family, sm_count, steps_per_program
from fastrw.kernels.convolution import (
    INTEGERS,
    Convolution,
    along_channels,
    block_of_channels,
    convolution,
    copied_as,
    corner,
    inside,
    step_of,
)
from fastrw.kernels.plans import Launch, parts, planned, total
from fastrw.kernels.precision import of_convolutions
from fastrw.kernels.products import dot

Config = config_type("BLOCK_O", "BLOCK_N", "BLOCK_S")  # output channels, taps and channels, positions a step
# By family, see common.py; largest first. "narrow" serves channels that are not contiguous, too.
CONFIGS = {
    "half": (Config(64, 128, 64, 8, 4), Config(16, 64, 64, 4, 4)),
    "tf32": (Config(64, 64, 32, 8, 2), Config(16, 64, 32, 8, 3)),
    "ieee": (Config(64, 64, 16, 8, 2), Config(16, 64, 16, 4, 2)),
    "narrow": (Config(32, 32, 32, 4, 2), Config(16, 64, 32, 4, 2)),
}
WIDE = (Config(64, 64, 32, 4, 2), Config(16, 64, 32, 4, 2))  # in place of "half" where examples are weighted


def choose_config(n: int, O: int, columns: int, family: str, sm_count: int) -> Config:
    """The largest tile that is not half empty and of which, over all examples, every SM gets one."""
    return choose(CONFIGS[family], O, columns, cdiv(sm_count, max(n, 1)))


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
    w_ptr,
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
        mask_s, size = s_here < S - start, (D, H, W)
        if w_ptr is not None:
            weight = tl.load(w_ptr + example).to(tl.float32)
            mask_s = s_here < tl.where(weight != 0, S - start, 0)
            size = (tl.where(weight != 0, D, 0), H, W)  # no place is in it
        d, h, w = corner(s, (out_hw, out_w), stride, padding)
        x_rows = d * x_d + h * x_h + w * x_w
        if LAST:
            here = inside(d[:, None] + dd[None, :], h[:, None] + dh[None, :], w[:, None] + dw[None, :], size)
            x = tl.load(x_here_ptr + (x_rows[:, None] + x_columns[None, :]), mask=here & mask_n[None, :], other=0.0)
            mask_g = mask_s[:, None] & mask_o[None, :]
            g = tl.trans(tl.load(g_here_ptr + ((s * g_s)[:, None] + o_here[None, :]), mask=mask_g, other=0.0))
        else:
            here = inside(d[None, :] + dd[:, None], h[None, :] + dh[:, None], w[None, :] + dw[:, None], size)
            x = tl.load(x_here_ptr + (x_rows[None, :] + x_columns[:, None]), mask=here & mask_n[:, None], other=0.0)
            x = tl.trans(x)
            mask_g = mask_o[:, None] & mask_s[None, :]
            g = tl.load(g_here_ptr + ((o_here * g_o)[:, None] + (s * g_s)[None, :]), mask=mask_g, other=0.0)
        if w_ptr is not None:
            g = g.to(tl.float32) * weight
        G = dot(g, x, G, PRECISION)
    return G


@triton.jit(
    do_not_specialize=["n", "first", "chunk", "groups", "block_c", *INTEGERS, "V_o", "V_c", "V_tap"],
    do_not_specialize_on_alignment=["w_ptr"],
)
def _conv_instance_kernel(
    x_ptr,  # [n, C, D, H, W]
    g_ptr,  # [n, O, S]
    w_ptr,  # [n], or none; only where SUM
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
    if w_ptr is not None:
        w_ptr += first
    G = tl.zeros((BLOCK_O, BLOCK_N), tl.float32)
    shape, kernel = (S, D, H, W, out_hw, out_w), (kernel_hw, kernel_w)
    stride, padding = (stride_d, stride_h, stride_w), (padding_d, padding_h, padding_w)
    dilation, strides = (dilation_d, dilation_h, dilation_w), (x_n, x_c, x_d, x_h, x_w, g_n, g_o, g_s)
    G = _add(
        *(G, x_ptr, g_ptr, w_ptr, i * chunk, tl.minimum(i * chunk + chunk, n), mask_o, c, tap, mask_n),
        *(shape, kernel, stride, padding, dilation, strides, UNIT > 1, BLOCK_S, PRECISION),
    )
    mask = mask_o[:, None] & mask_n[None, :]
    if not SUM:
        V_ptr += o_first.to(tl.int64) * V_o
        V = tl.load(V_ptr + ((o_here * V_o)[:, None] + (tap * V_tap + c * V_c)[None, :]), mask=mask, other=0.0)
        tl.store(partial_ptr + tile.to(tl.int64) * n + i, tl.sum(G * V.to(tl.float32)))
    G_ptr += (i.to(tl.int64) * groups * O + o_first) * taps * C
    tl.store(G_ptr + ((o_here * taps * C)[:, None] + (tap * C + c)[None, :]), G, mask=mask)


def launch(
    it: Convolution,
    examples: tuple[int, int],  # from, to
    V: tuple[int, int, int] | None,  # its strides; None: G is summed over chunks of examples
    parts: int,
    precision: str,
    config: Config,
) -> Launch:
    """For x, g, weights [n] or None, V [O, C / groups, taps]; and, written, partial [tiles of all groups, examples] and
    G [parts, O, taps, C / groups], both float32: the share of each tile in each s_i, and the gradient of each example.
    Without V a part is a chunk of examples, and there is no partial."""
    first, n = examples[0], examples[1] - examples[0]
    return Launch(
        *(_conv_instance_kernel, (_all_tiles(it, config) * parts,), config),
        *(n, first, cdiv(n, max(parts, 1)), it.groups),
        *(block_of_channels(it.channels[0], config.BLOCK_N) // it.unit, *it.arguments()),
        *(V or (0, 0, 0)),
        *(it.unit, V is None),
        PRECISION=precision,
    )


def run_conv_instance(
    it: Convolution, examples: tuple[int, int], V: Tensor | None, partial: Tensor | None, G: Tensor, *how
) -> None:
    """Fill G, and partial with the share of each tile in each s_i. how: precision and config."""
    strides = None if V is None else V.stride()
    launch(it, examples, strides, G.shape[0], *how)(it.x, it.g, None, V, partial, G)


def gradients(n: int, O: int, C: int, kernel: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape [n, O, C, *kernel] and strides of what is [n, O, *kernel, C] in memory."""
    like = torch.empty(n, O, *kernel, C, device="meta").movedim(-1, 2)
    return tuple(like.shape), like.stride()


def sum_of_chunks(
    it: Convolution,
    examples: tuple[int, int],
    kernel: Sequence[int],
    available: int,
    precision: str,
    weighted: bool = False,
) -> tuple[int, Callable[..., Tensor]]:
    """How many elements the chunks have that the sum over the examples takes on this many SMs; and what takes it, of x,
    g and weights [n] or None."""
    n, (C, O) = examples[1] - examples[0], it.channels
    kind = family(it.x, precision=precision, aligned=it.unit > 1)
    if weighted and kind == "half":
        config = choose(WIDE, O, C * it.taps, cdiv(available, max(n, 1)))
    else:
        config = choose_config(n, O, C * it.taps, kind, available)
    chunks = cdiv(n, steps_per_program(n, _all_tiles(it, config), available))
    shape, strides = gradients(chunks, O * it.groups, C, kernel)
    size = prod(shape)
    add = launch(it, examples, None, chunks, precision, config) if size else None

    def sum_of(x: Tensor, g: Tensor, w: Tensor | None) -> Tensor:
        sums = x.new_empty_strided(shape, strides, dtype=torch.float32)
        if add is not None:
            add(x, g, w, None, None, sums)
        return torch.sum(sums, 0, out=x.new_empty(shape[1:], dtype=torch.float32))

    return size, sum_of


def _tiles(C: int, taps: int, config: Config) -> int:
    """Tiles that hold all channels and taps of a group."""
    block_c = block_of_channels(C, config.BLOCK_N)
    return cdiv(taps, config.BLOCK_N // block_c) * cdiv(C, block_c)


def _all_tiles(it: Convolution, config: Config) -> int:
    """Tiles of all groups."""
    C, O = it.channels
    return it.groups * cdiv(O, config.BLOCK_O) * _tiles(C, it.taps, config)


@planned(of_convolutions)
def launch_conv_instance(
    x: Tensor, g: Tensor, n: int, V: Tensor | None, kernel: Sequence[int], *options
) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """s [n], G [n, O, C / groups, *kernel] and V, float32, of float32, bfloat16 or float16 x and g.

    options: stride, padding and dilation, a number a dimension, and groups.
    """
    groups, precision = options[-1], of_convolutions(x.dtype)
    N, O, C, taps, available = x.shape[0], g.shape[1], x.shape[1] // groups, prod(kernel), sm_count(x.device)
    it = along_channels(convolution(x, g, kernel, *options))
    copy_x, copy_g = copied_as(x, it.x), copied_as(g, it.g)
    kind = family(x, precision=precision, aligned=it.unit > 1)

    _, added = sum_of_chunks(it, (n, N), kernel, available, precision) if V is None else (0, None)
    config = choose_config(n, O // groups, C * taps, kind, available)
    count = _all_tiles(it, config)
    fill = launch(it, (0, n), (C * taps, taps, 1), n, precision, config) if n * O * taps * C else None
    shape, strides = gradients(n, O, C, kernel)

    def serve(x: Tensor, g: Tensor, n: int, V: Tensor | None, *rest) -> tuple[Tensor, Tensor, Tensor]:
        x = x if copy_x is None else copy_x(x)
        g = g if copy_g is None else copy_g(g)
        V = added(x, g, None) if V is None else V.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        partial = parts(x, count, n)
        G = x.new_empty_strided(shape, strides, dtype=torch.float32)
        if fill is not None:
            fill(x, g, None, V, partial, G)
        return total(partial, count), G, V

    return serve
