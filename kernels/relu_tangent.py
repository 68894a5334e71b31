"""relu_tangent in Triton: t, 0 where output <= 0. Memory is one long row."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrw.kernels.dense import dense, laid_out_as, unit

CONFIG = (2048, 8, 1)  # elements of a program, warps, stages


@triton.jit(do_not_specialize=["count"])
def _relu_tangent_kernel(t_ptr, output_ptr, out_ptr, count, UNIT: tl.constexpr, BLOCK_T: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * BLOCK_T
    i = tl.arange(0, BLOCK_T)
    mask = i < count * UNIT - start
    t = tl.load(t_ptr + start + i, mask=mask, other=0.0)
    output = tl.load(output_ptr + start + i, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + start + i, tl.where(output <= 0, 0.0, t.to(tl.float32)).to(t.dtype), mask=mask)


def launch_relu_tangent(t: Tensor, output: Tensor) -> Tensor:
    """The tangent like t, of float32, bfloat16 or float16 tensors."""
    t = dense(t)
    output, out = laid_out_as(t, output), torch.empty_like(t)
    size = unit(t.numel(), t, output, out)
    block, num_warps, num_stages = CONFIG
    if t.numel():
        with torch.cuda.device_of(t):
            _relu_tangent_kernel[(triton.cdiv(t.numel(), block),)](
                *(t, output, out, t.numel() // size, size, block), num_warps=num_warps, num_stages=num_stages
            )
    return out
