"""batch_norm_tangent in Triton: the tangent of BatchNorm, of the residual added to it and of the ReLU after both.

Memory is a matrix of adjacent rows: planes [n C, S] of contiguous tensors, whose channel is that of the
row, or rows [n S, C] of channels-last ones, whose channel is the column. Where the sums of t and t x are not given, one
pass takes them, in chunks of rows that are added in a fixed order: no atomics, the same bits in every run. One pass
does all the rest.

Widths arrive in units of UNIT elements, 16 bytes where every row allows it: this tells the compiler that it may load
16 bytes at a time, whatever the width.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrw.kernels.common import cdiv, config_type, sm_count, unit
from fastrw.kernels.dense import channels_last, dense, laid_out_as
from fastrw.kernels.plans import Launch, parts, planned, total

Config = config_type("BLOCK_R", "BLOCK_K")
CONFIGS = tuple(Config(2048 // columns, columns, 8, 1) for columns in (512, 128, 32, 8))  # widest first


def choose_config(columns: int) -> Config:
    """The widest tile of which at most a quarter is past the last column, else the narrowest."""
    for config in CONFIGS:
        if 4 * columns >= 3 * cdiv(columns, config.BLOCK_K) * config.BLOCK_K:
            return config
    return CONFIGS[-1]


def choose_chunk(rows: int, groups: int, config: Config, sm_count: int) -> int:
    """Rows that a program sums: whole tiles, few enough for four programs per SM."""
    tiles = max(cdiv(rows, config.BLOCK_R), 1)
    splits = min(tiles, cdiv(4 * sm_count, groups))
    return cdiv(tiles, splits) * config.BLOCK_R


# Nothing is specialised on a size: what the tests compile ahead of time is what runs.
@triton.jit(do_not_specialize=["rows", "columns", "channels", "chunk"])
def _batch_norm_sums_kernel(
    x_ptr,
    t_ptr,
    mean_ptr,  # [C]
    partial_ptr,  # [splits, 2, C]: sums of t and of t (x - mean)
    rows,  # n of planes, n S of rows
    columns,  # S or C, in units of UNIT
    channels,
    chunk,
    UNIT: tl.constexpr,
    PLANES: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    columns = columns * UNIT
    group = tl.program_id(0)  # a channel of planes, BLOCK_K channels of rows
    first = tl.program_id(1) * chunk
    last = tl.minimum(first + chunk, rows)
    r, k = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_K)
    if PLANES:
        start, width, stride = group.to(tl.int64) * columns, columns, tl.cast(columns, tl.int64) * channels
        mean = tl.load(mean_ptr + group).to(tl.float32)
    else:
        start, width = group.to(tl.int64) * BLOCK_K, tl.minimum(columns - group * BLOCK_K, BLOCK_K)
        stride = tl.cast(columns, tl.int64)
        mean = tl.load(mean_ptr + start + k, mask=k < width, other=0.0).to(tl.float32)[None, :]
    plain = tl.zeros((BLOCK_R, BLOCK_K), tl.float32)
    cross = tl.zeros((BLOCK_R, BLOCK_K), tl.float32)
    for row in range(first, last, BLOCK_R):
        for column in range(0, width, BLOCK_K):
            at = start + column + ((row + r) * stride)[:, None] + k[None, :]
            mask = (r < last - row)[:, None] & (k < width - column)[None, :]
            t = tl.load(t_ptr + at, mask=mask, other=0.0).to(tl.float32)
            x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
            plain += t
            cross += t * (x - mean)
    out_ptr = partial_ptr + tl.program_id(1).to(tl.int64) * 2 * channels
    if PLANES:
        tl.store(out_ptr + group, tl.sum(plain))
        tl.store(out_ptr + channels + group, tl.sum(cross))
    else:
        tl.store(out_ptr + start + k, tl.sum(plain, axis=0), mask=k < width)
        tl.store(out_ptr + channels + start + k, tl.sum(cross, axis=0), mask=k < width)


@triton.jit
def _channel(ptr, c, mask):
    """One number a channel; 0 where there is none."""
    if ptr is None:
        return tl.zeros(c.shape, tl.float32)
    else:
        return tl.load(ptr + c, mask=mask, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["rows", "columns", "channels", "count"])
def _batch_norm_tangent_kernel(
    x_ptr,
    t_ptr,
    mean_ptr,  # [C], as are all up to d_bias_ptr
    rstd_ptr,
    weight_ptr,
    d_weight_ptr,
    d_bias_ptr,
    residual_ptr,
    output_ptr,
    sums_ptr,  # [2, C]: of t, and of t x or t (x - mean)
    out_ptr,
    rows,  # n C of planes, n S of rows
    columns,  # S or C, in units of UNIT
    channels,
    count,  # n S
    UNIT: tl.constexpr,
    PLANES: tl.constexpr,
    CENTRED: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    columns = columns * UNIT
    across = tl.cdiv(columns, BLOCK_K)
    row, column = tl.program_id(0) // across * BLOCK_R, tl.program_id(0) % across * BLOCK_K
    r, k = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_K)
    mask_r, mask_k = r < rows - row, k < columns - column
    c = (row + r) % channels if PLANES else column + k
    mask_c = mask_r if PLANES else mask_k
    mean, rstd = _channel(mean_ptr, c, mask_c), _channel(rstd_ptr, c, mask_c)
    slope, shift = _channel(d_weight_ptr, c, mask_c) * rstd, _channel(d_bias_ptr, c, mask_c)
    axis: tl.constexpr = 1 if PLANES else 0
    at = tl.cast(row, tl.int64) * columns + column + r[:, None] * tl.cast(columns, tl.int64) + k[None, :]
    mask = mask_r[:, None] & mask_k[None, :]
    x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32) - tl.expand_dims(mean, axis)
    if t_ptr is None:
        out = x * tl.expand_dims(slope, axis) + tl.expand_dims(shift, axis)
    else:
        scale = rstd if weight_ptr is None else rstd * _channel(weight_ptr, c, mask_c)
        t_sum, cross = _channel(sums_ptr, c, mask_c), _channel(sums_ptr + channels, c, mask_c)
        if not CENTRED:
            cross -= mean * t_sum
        slope -= scale * rstd * rstd * (cross / count)
        shift -= scale * (t_sum / count)
        t = tl.load(t_ptr + at, mask=mask, other=0.0).to(tl.float32)
        out = x * tl.expand_dims(slope, axis) + t * tl.expand_dims(scale, axis) + tl.expand_dims(shift, axis)
    if residual_ptr is not None:
        out += tl.load(residual_ptr + at, mask=mask, other=0.0).to(tl.float32)
    if output_ptr is not None:
        out = tl.where(tl.load(output_ptr + at, mask=mask, other=0.0).to(tl.float32) <= 0, 0.0, out)
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=mask)


def _sums_launch(x: Tensor, t: Tensor, splits: int, chunk: int, config: Config) -> Launch:
    """For x, t, mean and partial [splits, 2, C], which is written, one row per `chunk` rows. x and t are dense, with
    the same strides."""
    columns, planes = _columns(x)
    C, size = x.shape[1], _unit(x, t)
    return Launch(
        *(_batch_norm_sums_kernel, (C if planes else cdiv(C, config.BLOCK_K), splits), config),
        *(x.shape[0] if planes else x.numel() // C, columns // size, C, chunk),
        *(size, planes),
    )


def run_batch_norm_sums(x: Tensor, t: Tensor, mean: Tensor, partial: Tensor, chunk: int, config: Config) -> None:
    """Fill partial [splits, 2, C]."""
    _sums_launch(x, t, len(partial), chunk, config)(x, t, mean, partial)


def _launch(
    x: Tensor, t: Tensor | None, residual: Tensor | None, output: Tensor | None, out: Tensor, centred: bool, config
) -> Launch:
    """For x, t; mean, rstd, weight, d_weight, d_bias [C]; residual, output; sums [2, C]: where `centred`, of t and
    t (x - mean); and out, which is written. Tensors of the shape of x are dense, with its strides."""
    columns, planes = _columns(x)
    C, size, rows = x.shape[1], _unit(x, t, residual, output, out), x.numel() // columns
    return Launch(
        *(_batch_norm_tangent_kernel, (cdiv(rows, config.BLOCK_R) * cdiv(columns, config.BLOCK_K),), config),
        *(rows, columns // size, C, x.numel() // C),
        *(size, planes, centred),
    )


def run_batch_norm_tangent(
    x: Tensor,
    t: Tensor | None,
    channels: tuple[Tensor | None, ...],  # mean, rstd, weight, d_weight, d_bias
    residual: Tensor | None,
    output: Tensor | None,
    sums: Tensor | None,
    out: Tensor,
    centred: bool,
    config: Config,
) -> None:
    """Fill out."""
    _launch(x, t, residual, output, out, centred, config)(x, t, *channels, residual, output, sums, out)


@planned()
def launch_batch_norm_tangent(
    x: Tensor,
    t: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    d_weight: Tensor | None,
    d_bias: Tensor | None,
    residual: Tensor | None,
    output: Tensor | None,
    sums: Tensor | None,
) -> Callable[..., Tensor]:
    """The tangent like x, of float32, bfloat16 or float16 tensors; sums are kept in float32."""
    given = (x, t, residual, output)
    x = dense(x)
    t, residual, output = (laid_out_as(x, a) for a in given[1:])
    lie = [a is b for a, b in zip(given, (x, t, residual, output), strict=True)]
    plain = x.is_contiguous()
    out = torch.empty_like(x)
    if x.numel() == 0:
        return lambda x, *rest: torch.empty_like(dense(x))
    columns, planes = _columns(x)
    config = choose_config(columns)
    centred = t is not None and sums is None
    count, add = 0, None
    if centred:
        C = x.shape[1]
        rows, groups = (x.shape[0], C) if planes else (x.numel() // C, cdiv(C, config.BLOCK_K))
        chunk = choose_chunk(rows, groups, config, sm_count(x.device))
        count = cdiv(rows, chunk)
        add = _sums_launch(x, t, count, chunk, config)
    fill = _launch(x, t, residual, output, out, centred, config)
    vectors_lie = all(a is None or a.is_contiguous() for a in (mean, rstd, weight, d_weight, d_bias, sums))
    all_lie = all(lie) and vectors_lie

    def serve(x, t, mean, rstd, weight, d_weight, d_bias, residual, output, sums) -> Tensor:
        if not all_lie:
            x = x if lie[0] else x.contiguous()
            t, residual, output = (
                a if lies else a.contiguous() if plain else torch.empty_like(x).copy_(a)
                for a, lies in zip((t, residual, output), lie[1:], strict=True)
            )
            mean, rstd, weight, d_weight, d_bias, sums = (
                None if a is None else a.contiguous() for a in (mean, rstd, weight, d_weight, d_bias, sums)
            )
        if add is not None:
            partial = parts(x, count, 2, x.shape[1])
            add(x, t, mean, partial)
            sums = total(partial, count)
        out = torch.empty_like(x)
        fill(x, t, mean, rstd, weight, d_weight, d_bias, residual, output, sums, out)
        return out

    return serve


def _columns(x: Tensor) -> tuple[int, bool]:
    """The width of the matrix that x is, and whether its rows are planes."""
    return (x.shape[1], False) if channels_last(x) else (x[0, 0].numel(), True)


def _unit(*tensors: Tensor | None) -> int:
    """`unit` of those that are given, as matrices."""
    return unit(*(x.movedim(1, -1) if channels_last(x) else x.flatten(2) for x in tensors if x is not None))
