"""gram_dot in Triton: s_r = sum_k (a_r . a_k + bias)(g_r . g_k), with nothing of size r x k in global memory.

A program owns BLOCK_R train rows and a stretch of the validation rows. For every BLOCK_K of them it forms both products
in float32 tiles on tensor cores, multiplies the tiles and adds the row sums to its own. Stretches meet in a second sum
of [splits, r], in a fixed order: no atomics, the same bits in every run.

Addressing is worth 50 to 100 registers: one 64-bit base a tile, 32-bit offsets inside it; rows past the end are clamped
to the last one, whose result is dropped; columns past the end are masked to 0; validation rows past the end are masked
once, in the product. Widths and strides arrive in units of UNIT elements, 16 bytes where every row allows it: that is
how the compiler learns that it may load 16 bytes at a time, whatever the width.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Config(NamedTuple):
    """A tile and how it runs; tests compile every one and check its registers, spills and matrix instructions."""

    BLOCK_R: int
    BLOCK_K: int
    BLOCK_C: int  # columns of p or q a step
    num_warps: int
    num_stages: int


# Largest first. "half" is bfloat16 and float16; float32 is "ieee", or "tf32" where torch allows it; "narrow" serves
# rows that are not aligned to 16 bytes: larger tiles spill there.
CONFIGS = {
    "half": (Config(128, 64, 64, 8, 3), Config(64, 64, 64, 8, 3), Config(64, 16, 64, 4, 2)),
    "tf32": (Config(128, 64, 32, 8, 3), Config(64, 64, 32, 8, 3), Config(64, 16, 32, 4, 2)),
    "ieee": (Config(64, 64, 32, 8, 2), Config(64, 16, 32, 4, 2)),
    "narrow": (Config(32, 32, 32, 4, 3),),
}
MAX_STRIDE = 2**24  # a tile of 128 rows of this stride is the most that 32-bit offsets reach


def choose_config(r: int, k: int, family: str, processors: int) -> Config:
    """The largest tile that is not half empty in k and whose programs, split over k, occupy every processor."""
    for config in CONFIGS[family]:
        tiles = triton.cdiv(r, config.BLOCK_R) * triton.cdiv(k, config.BLOCK_K)
        if 2 * k > config.BLOCK_K and tiles >= processors:
            return config
    return CONFIGS[family][-1]


def choose_split(r: int, k: int, config: Config, processors: int) -> int:
    """Validation rows a program walks: whole tiles, few enough for two programs a processor."""
    tiles = max(triton.cdiv(k, config.BLOCK_K), 1)
    splits = min(tiles, triton.cdiv(2 * processors, triton.cdiv(r, config.BLOCK_R)))
    return triton.cdiv(tiles, splits) * config.BLOCK_K


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
@triton.jit(do_not_specialize=["r", "k", "p", "q", "stride_a", "stride_g", "stride_a_val", "stride_g_val", "split"])
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
    split,
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
    k_first = tl.program_id(1) * split
    k_last = tl.minimum(k_first + split, k)
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


def run_gram_dot(
    a: Tensor,  # [r, p]
    g: Tensor,  # [r, q]
    a_val: Tensor,  # [k, p]
    g_val: Tensor,  # [k, q]
    partial: Tensor,  # [splits, r] float32, written
    bias: float,
    split: int,
    precision: str,
    config: Config,
) -> None:
    """Fill partial: its row i holds the sums over validation rows [i * split, (i + 1) * split)."""
    (r, p), (k, q) = a.shape, g_val.shape
    unit_p, unit_q = _unit(a, a_val), _unit(g, g_val)
    with torch.cuda.device_of(a):
        _gram_dot_kernel[(triton.cdiv(r, config.BLOCK_R), partial.shape[0])](
            *(a, g, a_val, g_val, partial),
            *(r, k, p // unit_p, q // unit_q),
            *(a.stride(0) // unit_p, g.stride(0) // unit_q, a_val.stride(0) // unit_p, g_val.stride(0) // unit_q),
            *(split, bias, unit_p, unit_q),
            *(config.BLOCK_R, config.BLOCK_K, config.BLOCK_C, precision),
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        )


def launch_gram_dot(a: Tensor, g: Tensor, a_val: Tensor, g_val: Tensor, bias: float) -> Tensor:
    """s [r] float32 of float32, bfloat16 or float16 matrices; float32 products are TF32 as torch.backends allows."""
    (r, k), processors = (a.shape[0], a_val.shape[0]), _processors(a.device)
    if r == 0:
        return a.new_empty(0, dtype=torch.float32)
    a, g, a_val, g_val = _rows(a), _rows(g), _rows(a_val), _rows(g_val)
    precision = "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"
    if _unit(a, a_val) == 1 or _unit(g, g_val) == 1:
        family = "narrow"
    else:
        family = precision if a.dtype == torch.float32 else "half"
    config = choose_config(r, k, family, processors)
    split = choose_split(r, k, config, processors)
    partial = a.new_empty(max(triton.cdiv(k, split), 1), r, dtype=torch.float32)
    run_gram_dot(a, g, a_val, g_val, partial, bias, split, precision, config)
    return partial.sum(0)


def _rows(x: Tensor) -> Tensor:
    """Rows of adjacent elements that 32-bit offsets reach."""
    return x if x.stride(1) == 1 and x.stride(0) <= MAX_STRIDE else x.contiguous()


def _unit(x: Tensor, y: Tensor) -> int:
    """Elements in 16 bytes where every width, stride and address of both is a multiple of 16 bytes, else 1."""
    unit = 16 // x.element_size()
    aligned = all(t.data_ptr() % 16 == 0 and t.stride(0) % unit == 0 and t.shape[1] % unit == 0 for t in (x, y))
    return unit if aligned else 1


def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
