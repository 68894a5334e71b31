"""combine in Triton: sum_i w_i G_i, where an example of weight 0 is not read.

G is read in place where an example is dense, whatever the order of its dimensions, as a matrix [n, elements]. A
program owns BLOCK_E elements and a chunk of the examples; chunks are added in a second pass, in a fixed order.
"""

from collections.abc import Callable
from math import prod

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrw.kernels.common import cdiv, config_type, sm_count, steps_per_program, unit
from fastrw.kernels.plans import Launch, parts, planned, total

Config = config_type("BLOCK_N", "BLOCK_E")
CONFIG = Config(8, 512, 4, 3)


@triton.jit(do_not_specialize=["n", "size", "G_n", "chunk"], do_not_specialize_on_alignment=["w_ptr"])
def _combine_kernel(
    G_ptr,  # [n, size]
    w_ptr,  # [n]
    partial_ptr,  # [chunks, size]
    n,
    size,  # in units of UNIT, as is the stride of G
    G_n,
    chunk,
    UNIT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    size, G_n = size.to(tl.int64) * UNIT, G_n.to(tl.int64) * UNIT
    e_start = tl.program_id(0).to(tl.int64) * BLOCK_E
    n_here, e_here = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_E)
    mask_e = e_here < size - e_start
    G_ptr += e_start
    first = tl.program_id(1) * chunk
    last = tl.minimum(first + chunk, n)
    total = tl.zeros((BLOCK_N, BLOCK_E), tl.float32)
    for start in range(first, last, BLOCK_N):
        w = tl.load(w_ptr + start + n_here, mask=n_here < last - start, other=0.0).to(tl.float32)
        mask = (w != 0)[:, None] & mask_e[None, :]
        rows = (start + n_here).to(tl.int64) * G_n
        G = tl.load(G_ptr + (rows[:, None] + e_here[None, :]), mask=mask, other=0.0)
        total += w[:, None] * G.to(tl.float32)
    partial_ptr += tl.program_id(1) * size + e_start
    tl.store(partial_ptr + e_here, tl.sum(total, axis=0), mask=mask_e)


def _launch(G: Tensor, parts: int, chunk: int, config: Config) -> Launch:
    """For G [n, size], w [n] and partial [parts, size] float32, which is written: its row i holds the sum over examples
    [i * chunk, (i + 1) * chunk)."""
    (n, size), u = G.shape, unit(G)
    grid = (cdiv(size, config.BLOCK_E), parts)
    return Launch(_combine_kernel, grid, config, n, size // u, G.stride(0) // u, chunk, u)


def run_combine(G: Tensor, w: Tensor, partial: Tensor, chunk: int, config: Config = CONFIG) -> None:
    """Fill partial [chunks, size]."""
    _launch(G, partial.shape[0], chunk, config)(G, w, partial)


@planned()
def launch_combine(G: Tensor, w: Tensor) -> Callable[..., Tensor]:
    """[...] float32 of float32, bfloat16 or float16 G [n, ...]."""
    n, *shape = G.shape
    order = sorted(range(1, G.ndim), key=lambda dim: G.stride(dim), reverse=True)
    rows = G.permute(0, *order).reshape(n, prod(shape))
    size = rows.shape[1]
    if rows.numel() == 0:
        return lambda G, w: G.new_zeros(shape, dtype=torch.float32)
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    lies = rows.data_ptr() == G.data_ptr()
    steps = cdiv(n, CONFIG.BLOCK_N)
    chunk = steps_per_program(steps, cdiv(size, CONFIG.BLOCK_E), sm_count(G.device)) * CONFIG.BLOCK_N
    count = cdiv(n, chunk)
    fill = _launch(rows, count, chunk, CONFIG)
    back = tuple(sorted(range(len(order)), key=lambda k: order[k]))
    ordered = [G.shape[dim] for dim in order]
    turned = back != tuple(range(len(back)))

    def serve(G: Tensor, w: Tensor) -> Tensor:
        if not lies:  # an example is not dense
            G = G.permute(0, *order).reshape(n, size).contiguous()
        partial = parts(G, count, *ordered)
        fill(G, w.contiguous(), partial)
        found = total(partial, count)
        return found.permute(back).contiguous() if turned else found

    return serve
