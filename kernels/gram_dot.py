"""gram_dot in Triton: s_r = sum_k (a_r . a_k + bias)(g_r . g_k), with nothing of size r x k in global memory.

Split-K: a program owns BLOCK_R train rows and a chunk of the validation rows. For every BLOCK_K of them it forms both
products in float32 tiles on tensor cores, multiplies the tiles and adds the row sums to its own. The partial sums
[splits, r] are added in a second pass, in a fixed order: no atomics, the same bits in every run.

Addressing saves 50 to 100 registers: one 64-bit base per tile, 32-bit offsets inside it; rows past the end are clamped
to the last one, whose result is dropped; columns past the end are masked to 0; validation rows past the end are masked
once, in the product. Widths and strides arrive in units of UNIT elements, 16 bytes where every row allows it: this
tells the compiler that it may load 16 bytes at a time, whatever the width.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrw.kernels.common import (
    cdiv,
    choose,
    config_type,
    family,
    rows,
    sm_count,
    steps_per_program,
    unit,
)
from fastrw.kernels.plans import Launch, parts, planned, total
from fastrw.kernels.precision import of_products

Config = config_type("BLOCK_R", "BLOCK_K", "BLOCK_C")  # BLOCK_C: columns of p or q a step
# By family, see common.py; largest first.
CONFIGS = {
    "half": (Config(128, 64, 64, 8, 3), Config(64, 64, 64, 4, 3), Config(64, 16, 64, 4, 2)),
    "tf32": (Config(128, 64, 32, 8, 3), Config(64, 64, 32, 4, 3), Config(64, 16, 32, 4, 2)),
    "ieee": (Config(64, 64, 32, 8, 2), Config(64, 16, 32, 4, 2)),
    "narrow": (Config(32, 32, 64, 4, 4),),
}


def choose_config(r: int, k: int, family: str, sm_count: int) -> Config:
    """The largest tile that is not half empty in k and whose programs, split over k, occupy every SM."""
    return choose(CONFIGS[family], r, k, sm_count)


def choose_chunk(r: int, k: int, config: Config, sm_count: int) -> int:
    """Validation rows a program walks: whole tiles, few enough for two programs per SM."""
    return steps_per_program(cdiv(k, config.BLOCK_K), cdiv(r, config.BLOCK_R), sm_count) * config.BLOCK_K


@triton.jit
def _tile_dot(
    x_ptr,
    y_ptr,
    stride_x,
    stride_y,
    x_rows,
    y_rows,
    width,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """x[x_rows, :width] . y[y_rows, :width]  -> [BLOCK_R, BLOCK_K]"""
    columns = tl.arange(0, BLOCK_C)
    x_offsets = x_rows[:, None] * stride_x + columns[None, :]
    y_offsets = y_rows[:, None] * stride_y + columns[None, :]
    product = tl.zeros((BLOCK_R, BLOCK_K), tl.float32)
    for start in range(0, width, BLOCK_C):
        mask_c = (columns < width - start)[None, :]
        x = tl.load(x_ptr + start + x_offsets, mask=mask_c, other=0.0)
        y = tl.load(y_ptr + start + y_offsets, mask=mask_c, other=0.0)
        product = tl.dot(x, tl.trans(y), product, input_precision=PRECISION)
    return product


# Nothing is specialised on a size or a stride: what the tests compile ahead of time is what runs.
@triton.jit(do_not_specialize=["r", "k", "p", "q", "stride_a", "stride_g", "stride_a_val", "stride_g_val", "chunk"])
def _gram_dot_kernel(
    a_ptr,  # [r, p]
    g_ptr,  # [r, q]
    a_val_ptr,  # [k, p]
    g_val_ptr,  # [k, q]
    partial_ptr,  # [splits, r]
    r,
    k,
    p,  # in units of UNIT_P, as are the strides of a and a_val
    q,  # in units of UNIT_Q, as are the strides of g and g_val
    stride_a,
    stride_g,
    stride_a_val,
    stride_g_val,
    chunk,
    bias,
    UNIT_P: tl.constexpr,
    UNIT_Q: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    p, stride_a, stride_a_val = p * UNIT_P, stride_a * UNIT_P, stride_a_val * UNIT_P
    q, stride_g, stride_g_val = q * UNIT_Q, stride_g * UNIT_Q, stride_g_val * UNIT_Q
    r_start = tl.program_id(0) * BLOCK_R
    k_first = tl.program_id(1) * chunk
    k_last = tl.minimum(k_first + chunk, k)
    rows, val_rows = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_K)
    r_here = tl.minimum(rows, r - 1 - r_start)
    a_ptr += r_start.to(tl.int64) * stride_a
    g_ptr += r_start.to(tl.int64) * stride_g
    s = tl.zeros((BLOCK_R,), tl.float32)
    for k_start in range(k_first, k_last, BLOCK_K):
        k_here = tl.minimum(val_rows, k_last - 1 - k_start)
        a_tile_ptr = a_val_ptr + tl.cast(k_start, tl.int64) * stride_a_val
        g_tile_ptr = g_val_ptr + tl.cast(k_start, tl.int64) * stride_g_val
        inputs = _tile_dot(
            a_ptr, a_tile_ptr, stride_a, stride_a_val, r_here, k_here, p, BLOCK_R, BLOCK_K, BLOCK_C, PRECISION
        )
        gradients = _tile_dot(
            g_ptr, g_tile_ptr, stride_g, stride_g_val, r_here, k_here, q, BLOCK_R, BLOCK_K, BLOCK_C, PRECISION
        )
        mask_k = (val_rows < k_last - k_start)[None, :]
        s += tl.sum(tl.where(mask_k, (inputs + bias) * gradients, 0.0), axis=1)
    mask_r = rows < r - r_start
    tl.store(partial_ptr + tl.program_id(1).to(tl.int64) * r + r_start + rows, s, mask=mask_r)


def _launch(
    a: Tensor,  # [r, p]
    g: Tensor,  # [r, q]
    a_val: Tensor,  # [k, p]
    g_val: Tensor,  # [k, q]
    splits: int,
    bias: float,
    chunk: int,
    precision: str,
    config: Config,
) -> Launch:
    """For a, g, a_val, g_val and partial [splits, r] float32, which is written: its row i holds the sums over
    validation rows [i * chunk, (i + 1) * chunk)."""
    (r, p), (k, q) = a.shape, g_val.shape
    unit_p, unit_q = unit(a, a_val), unit(g, g_val)
    return Launch(
        *(_gram_dot_kernel, (cdiv(r, config.BLOCK_R), splits), config),
        *(r, k, p // unit_p, q // unit_q),
        *(a.stride(0) // unit_p, g.stride(0) // unit_q, a_val.stride(0) // unit_p, g_val.stride(0) // unit_q),
        *(chunk, float(bias), unit_p, unit_q),
        PRECISION=precision,
    )


def run_gram_dot(
    a: Tensor, g: Tensor, a_val: Tensor, g_val: Tensor, partial: Tensor, bias: float, chunk: int, *how
) -> None:
    """Fill partial [splits, r]. how: precision and config."""
    _launch(a, g, a_val, g_val, partial.shape[0], bias, chunk, *how)(a, g, a_val, g_val, partial)


@planned(of_products)
def launch_gram_dot(a: Tensor, g: Tensor, a_val: Tensor, g_val: Tensor, bias: float) -> Callable[..., Tensor]:
    """s [r] float32 of float32, bfloat16 or float16 matrices; float32 products as precision.py says."""
    (r, k), available, precision = (a.shape[0], a_val.shape[0]), sm_count(a.device), of_products(a.dtype)
    if r == 0:
        return lambda a, *rest: a.new_empty(0, dtype=torch.float32)
    a, g, a_val, g_val = rows(a), rows(g), rows(a_val), rows(g_val)
    tiles = family(a, g, precision=precision, aligned=unit(a, a_val) > 1 < unit(g, g_val))
    config = choose_config(r, k, tiles, available)
    chunk = choose_chunk(r, k, config, available)
    splits = max(cdiv(k, chunk), 1)
    fill = _launch(a, g, a_val, g_val, splits, bias, chunk, precision, config)

    def serve(a: Tensor, g: Tensor, a_val: Tensor, g_val: Tensor, bias: float) -> Tensor:
        partial = parts(a, splits, r)
        fill(rows(a), rows(g), rows(a_val), rows(g_val), partial)
        return total(partial, splits)

    return serve
