"""embedding_dot in Triton: s_r = g_r . V[idx_r], 0 where idx_r is the padding; V[idx] is never written.

A program owns BLOCK_R rows and walks their columns. Rows of V are found by 64-bit offsets: a table may be large. An
index outside the table reads nothing and gives nan. Widths and strides in units of 16 bytes as in gram_dot.py.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrw.kernels.common import cdiv, config_type, rows, unit
from fastrw.kernels.plans import Launch, planned

Config = config_type("BLOCK_R", "BLOCK_C")  # BLOCK_C: columns a step
# widest first
CONFIGS = (Config(2, 1024, 4, 3), Config(4, 256, 4, 3), Config(32, 64, 4, 3))


def choose_config(q: int) -> Config:
    """The widest tile that covers q with at most a quarter more columns than the closest cover has."""
    covered = [cdiv(q, c.BLOCK_C) * c.BLOCK_C for c in CONFIGS]
    return next(c for c, columns in zip(CONFIGS, covered, strict=True) if 4 * columns <= 5 * min(covered))


@triton.jit(
    do_not_specialize=["r", "q", "v", "stride_idx", "stride_g", "stride_V", "padding_idx"],
    do_not_specialize_on_alignment=["idx_ptr"],
)
def _embedding_dot_kernel(
    idx_ptr,  # [r]
    g_ptr,  # [r, q]
    V_ptr,  # [v, q]
    s_ptr,  # [r]
    r,
    q,  # in units of UNIT_Q
    v,
    stride_idx,
    stride_g,  # in units of UNIT_G
    stride_V,  # in units of UNIT_V
    padding_idx,
    UNIT_Q: tl.constexpr,
    UNIT_G: tl.constexpr,
    UNIT_V: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    q, stride_g, stride_V = q * UNIT_Q, stride_g * UNIT_G, stride_V * UNIT_V
    start = tl.program_id(0).to(tl.int64) * BLOCK_R
    here, columns = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_C)
    mask_r = here < r - start
    idx = tl.load(idx_ptr + (start + here) * stride_idx, mask=mask_r, other=0).to(tl.int64)
    inside = (idx >= 0) & (idx < v)
    mask_V = mask_r & inside
    V_ptr += (tl.where(inside, idx, 0) * stride_V)[:, None]
    g_ptr += start * stride_g
    sums = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for at in range(0, q, BLOCK_C):
        mask_c = (columns < q - at)[None, :]
        V = tl.load(V_ptr + at + columns[None, :], mask=mask_V[:, None] & mask_c, other=0.0)
        g = tl.load(
            g_ptr + at + (here[:, None] * stride_g + columns[None, :]), mask=mask_r[:, None] & mask_c, other=0.0
        )
        sums += g.to(tl.float32) * V.to(tl.float32)
    s = tl.where(inside, tl.where(idx == padding_idx, 0.0, tl.sum(sums, axis=1)), float("nan"))
    tl.store(s_ptr + start + here, s, mask=mask_r)


def _launch(idx: Tensor, g: Tensor, V: Tensor, padding_idx: int, config: Config) -> Launch:
    """For idx [r], g [r, q], V [v, q] and s [r] float32, which is written."""
    (r, q), unit_g, unit_V = g.shape, unit(g), unit(V)
    return Launch(
        *(_embedding_dot_kernel, (cdiv(r, config.BLOCK_R),), config),
        *(r, q // max(unit_g, unit_V), V.shape[0], idx.stride(0), g.stride(0) // unit_g, V.stride(0) // unit_V),
        *(padding_idx, max(unit_g, unit_V), unit_g, unit_V),
    )


def run_embedding_dot(idx: Tensor, g: Tensor, V: Tensor, padding_idx: int, s: Tensor, config: Config) -> None:
    """Fill s [r]."""
    _launch(idx, g, V, padding_idx, config)(idx, g, V, s)


@planned()
def launch_embedding_dot(idx: Tensor, g: Tensor, V: Tensor, padding_idx: int) -> Callable[..., Tensor]:
    """s [r] float32 of float32, bfloat16 or float16 rows; V of the same dtype or float32."""
    r, q = g.shape
    if r == 0 or q == 0:
        return lambda idx, g, *rest: g.new_zeros(r, dtype=torch.float32)
    fill = _launch(idx, rows(g), _adjacent(V), padding_idx, choose_config(q))

    def serve(idx: Tensor, g: Tensor, V: Tensor, padding_idx: int) -> Tensor:
        s = g.new_empty(r, dtype=torch.float32)
        fill(idx, rows(g), _adjacent(V), s)
        return s

    return serve


def _adjacent(V: Tensor) -> Tensor:
    """Rows of adjacent elements, which 64-bit offsets find."""
    return V if V.stride(1) == 1 else V.contiguous()
