"""norm_dot in Triton: s_i = sum_S sum_C g (x_hat V_gamma + V_beta), x and g read once, x_hat formed in registers.

Every layout is read as [e, a, b] with b contiguous: channels next to each other are [n, S, C], positions next to each
other [n, C, S]; where S is 1 the examples take its place, [1, n, C]. A program owns one e and a chunk of a, which it
walks in tiles; sums of chunks [chunks, e] are added in a second pass, in a fixed order. Where S
is 1 it stores the sum of every a instead.

Along which of a and b statistics and V vary is known when the kernel is compiled. Addressing as in gram_dot.py: a
64-bit base a tile, widths and strides in units of 16 bytes where every row allows it.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrw.kernels.common import cdiv, config_type, rows, sm_count, steps_per_program, unit
from fastrw.kernels.plans import Launch, parts, planned, total

Config = config_type("BLOCK_A", "BLOCK_B")
# Widest first. "half" is bfloat16 and float16 in rows aligned to 16 bytes; "other" is float32, and rows that are not:
# larger tiles spill there.
CONFIGS = {
    "half": (Config(1, 1024, 4, 3), Config(8, 256, 4, 3), Config(32, 64, 4, 3), Config(128, 16, 4, 3)),
    "other": (Config(1, 1024, 4, 3), Config(4, 256, 4, 3), Config(16, 64, 4, 3), Config(64, 16, 8, 3)),
}


def choose_config(a: int, b: int, family: str) -> Config:
    """The widest tile that covers a x b with at most a quarter more elements than the closest cover has."""
    configs = CONFIGS[family]
    covered = [cdiv(a, c.BLOCK_A) * c.BLOCK_A * cdiv(b, c.BLOCK_B) * c.BLOCK_B for c in configs]
    return next(c for c, elements in zip(configs, covered, strict=True) if 4 * elements <= 5 * min(covered))


@triton.jit
def _statistic(ptr, a, b, mask_a, mask_b, stride_a, stride_b, ALONG_A: tl.constexpr, ALONG_B: tl.constexpr):
    """A mean or rstd of groups a and b: [BLOCK_A, 1], [1, BLOCK_B] or [BLOCK_A, BLOCK_B]."""
    if ALONG_A and ALONG_B:
        offsets = a.to(tl.int64)[:, None] * stride_a + b[None, :] * stride_b
        mask = mask_a[:, None] & mask_b[None, :]
    elif ALONG_B:
        offsets = (b * stride_b)[None, :]
        mask = mask_b[None, :]
    else:
        offsets = (a.to(tl.int64) * stride_a)[:, None]
        mask = mask_a[:, None]
    return tl.load(ptr + offsets, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _direction(ptr, a, b, mask_a, mask_b, ALONG_A: tl.constexpr):
    """V_gamma or V_beta: [BLOCK_A, 1] or [1, BLOCK_B]."""
    if ALONG_A:
        found = tl.load(ptr + a[:, None], mask=mask_a[:, None], other=0.0)
    else:
        found = tl.load(ptr + b[None, :], mask=mask_b[None, :], other=0.0)
    return found.to(tl.float32)


# Nothing is specialised on a size or a stride: what the tests compile ahead of time is what runs.
_SIZES = ("A", "B", "width", "chunk", "splits", "x_e", "x_a", "g_e", "g_a")
_STRIDES = ("mean_e", "mean_a", "mean_b", "rstd_e", "rstd_a", "rstd_b")


@triton.jit(do_not_specialize=[*_SIZES, *_STRIDES])
def _norm_dot_kernel(
    x_ptr,  # [e, a, b]
    g_ptr,  # [e, a, b]
    mean_ptr,  # where MEAN
    rstd_ptr,
    gamma_ptr,  # [a] or [b], where GAMMA
    beta_ptr,  # the same, where BETA
    partial_ptr,  # [splits, e], or [a] where EACH
    A,
    B,  # in units of UNIT
    width,  # adjacent channels that share a statistic
    chunk,  # of a, for each program: whole tiles
    splits,
    x_e,  # in units of UNIT, as are the three after it
    x_a,
    g_e,
    g_a,
    mean_e,
    mean_a,
    mean_b,
    rstd_e,
    rstd_a,
    rstd_b,
    MEAN: tl.constexpr,
    GAMMA: tl.constexpr,
    BETA: tl.constexpr,
    ALONG_A: tl.constexpr,  # whether statistics vary along a
    ALONG_B: tl.constexpr,
    V_ALONG_A: tl.constexpr,  # channels are a, else b
    EACH: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    B, x_e, x_a, g_e, g_a = B * UNIT, x_e * UNIT, x_a * UNIT, g_e * UNIT, g_a * UNIT
    e, split = (tl.program_id(0) // splits).to(tl.int64), tl.program_id(0) % splits
    x_ptr += e * x_e
    g_ptr += e * g_e
    rstd_ptr += e * rstd_e
    if MEAN:
        mean_ptr += e * mean_e
    last = tl.minimum(split * chunk + chunk, A)
    in_a, in_b = tl.arange(0, BLOCK_A), tl.arange(0, BLOCK_B)
    sums = tl.zeros((BLOCK_A, BLOCK_B), tl.float32)
    for start in range(split * chunk, last, BLOCK_A):
        a, mask_a = start + in_a, in_a < last - start
        x_tile_ptr = x_ptr + tl.cast(start, tl.int64) * x_a
        g_tile_ptr = g_ptr + tl.cast(start, tl.int64) * g_a
        for b_start in range(0, B, BLOCK_B):
            b, mask_b = b_start + in_b, in_b < B - b_start
            mask = mask_a[:, None] & mask_b[None, :]
            y = tl.zeros((1, 1), tl.float32)
            if GAMMA:
                x = tl.load(x_tile_ptr + b_start + (in_a[:, None] * x_a + in_b[None, :]), mask=mask, other=0.0)
                group_a, group_b = (a // width, b) if V_ALONG_A else (a, b // width)
                scale = _statistic(rstd_ptr, group_a, group_b, mask_a, mask_b, rstd_a, rstd_b, ALONG_A, ALONG_B)
                scale *= _direction(gamma_ptr, a, b, mask_a, mask_b, V_ALONG_A)
                y = x.to(tl.float32)
                if MEAN:
                    y -= _statistic(mean_ptr, group_a, group_b, mask_a, mask_b, mean_a, mean_b, ALONG_A, ALONG_B)
                y *= scale
            if BETA:
                y += _direction(beta_ptr, a, b, mask_a, mask_b, V_ALONG_A)
            g = tl.load(g_tile_ptr + b_start + (in_a[:, None] * g_a + in_b[None, :]), mask=mask, other=0.0)
            sums += g.to(tl.float32) * y
        if EACH:
            tl.store(partial_ptr + a, tl.sum(sums, axis=1), mask=mask_a)
            sums = tl.zeros((BLOCK_A, BLOCK_B), tl.float32)
    if not EACH:
        s = tl.sum(tl.sum(sums, axis=1), axis=0)
        tl.store(partial_ptr + split.to(tl.int64) * (tl.num_programs(0) // splits) + e, s)


class Statistics(NamedTuple):
    """mean and rstd as [e, groups along a, groups along b], expanded where they do not vary."""

    mean: Tensor | None
    rstd: Tensor
    width: int  # adjacent channels that share one

    def strides(self, x: Tensor | None) -> tuple[int, int, int]:
        return (0, 0, 0) if x is None else tuple(s if n > 1 else 0 for s, n in zip(x.stride(), x.shape, strict=True))

    def along(self, dim: int) -> bool:
        return any(self.strides(x)[dim] != 0 for x in (self.mean, self.rstd))


def _launch(
    x: Tensor,  # [e, a, b], not read where V_gamma is None
    g: Tensor,  # [e, a, b]
    statistics: Statistics,
    gamma: bool,
    beta: bool,
    along_a: bool,  # do V_gamma and V_beta lie along a, or along b?
    chunk: int,  # of a, for each program: whole tiles
    each: bool,
    config: Config,
) -> Launch:
    """For x, g, mean, rstd, V_gamma, V_beta and partial [splits, e] float32, or [a] where each, which is written: its
    row i holds the sums over a in [i * chunk, (i + 1) * chunk); or one sum for each a."""
    (e, a, b), size = g.shape, unit(x, g)
    splits = cdiv(a, chunk)
    return Launch(
        *(_norm_dot_kernel, (e * splits,), config),
        *(a, b // size, statistics.width, chunk, splits),
        *(stride // size for t in (x, g) for stride in t.stride()[:2]),
        *(*statistics.strides(statistics.mean), *statistics.strides(statistics.rstd)),
        *(statistics.mean is not None, gamma, beta),
        *(statistics.along(1), statistics.along(2), along_a, each, size),
    )


def run_norm_dot(
    x: Tensor,
    g: Tensor,
    statistics: Statistics,
    V_gamma: Tensor | None,
    V_beta: Tensor | None,
    along_a: bool,
    partial: Tensor,
    *how,
) -> None:
    """Fill partial. how: chunk, each and config."""
    fill = _launch(x, g, statistics, V_gamma is not None, V_beta is not None, along_a, *how)
    fill(x, g, statistics.mean, statistics.rstd, V_gamma, V_beta, partial)


@planned()
def launch_norm_dot(
    x: Tensor, g: Tensor, mean: Tensor | None, rstd: Tensor, V_gamma: Tensor | None, V_beta: Tensor | None
) -> Callable[..., Tensor]:
    """s [n] float32 of float32, bfloat16 or float16 x and g [n, S, C]; the others of the same dtype or float32."""
    (n, S, C), G = x.shape, rstd.shape[2]
    if x.numel() == 0:
        return lambda x, *rest: x.new_zeros(n, dtype=torch.float32)
    lead = g if V_gamma is None else x
    dims = (0, 1) if S == 1 else (1, 2) if lead.stride(2) != 1 and lead.stride(1) == 1 else (0, 0)

    def turned(x: Tensor) -> Tensor:
        return rows(x.transpose(*dims))

    turned_x, turned_g = turned(g if V_gamma is None else x), turned(g)
    x_lies, g_lies = (t.data_ptr() == of.data_ptr() for t, of in ((turned_x, lead), (turned_g, g)))
    e, a, b = turned_g.shape
    half = g.dtype != torch.float32 and unit(turned_x, turned_g) > 1
    config = choose_config(a, b, "half" if half else "other")
    chunk = steps_per_program(cdiv(a, config.BLOCK_A), e, sm_count(g.device)) * config.BLOCK_A
    each = S == 1
    count = 1 if each else cdiv(a, chunk)
    statistics = Statistics(None if mean is None else mean.transpose(*dims), rstd.transpose(*dims), C // G)
    directions = V_gamma is not None, V_beta is not None
    fill = _launch(turned_x, turned_g, statistics, *directions, dims == (1, 2), chunk, each, config)

    def serve(
        x: Tensor, g: Tensor, mean: Tensor | None, rstd: Tensor, V_gamma: Tensor | None, V_beta: Tensor | None
    ) -> Tensor:
        g = g if g_lies else turned(g)
        x = g if V_gamma is None else x if x_lies else turned(x)
        V_gamma, V_beta = (None if V is None else V.contiguous() for V in (V_gamma, V_beta))
        partial = parts(g, count, n)
        fill(x, g, mean, rstd, V_gamma, V_beta, partial)
        return total(partial, count)

    return serve
