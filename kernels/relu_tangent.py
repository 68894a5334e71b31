"""relu_tangent in Triton: t, 0 where output <= 0. Memory is one long row."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrw.kernels.dense import dense, laid_out_as

BLOCK = 2048
NUM_WARPS = 4


@triton.jit(do_not_specialize=["size"])
def _relu_tangent_kernel(t_ptr, output_ptr, out_ptr, size, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    i = tl.arange(0, BLOCK)
    mask = i < size - start
    t = tl.load(t_ptr + start + i, mask=mask, other=0.0)
    output = tl.load(output_ptr + start + i, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + start + i, tl.where(output <= 0, 0.0, t.to(tl.float32)).to(t.dtype), mask=mask)


def launch_relu_tangent(t: Tensor, output: Tensor) -> Tensor:
    """The tangent like t, of float32, bfloat16 or float16 tensors."""
    t = dense(t)
    output, out = laid_out_as(t, output), torch.empty_like(t)
    if t.numel():
        with torch.cuda.device_of(t):
            _relu_tangent_kernel[(triton.cdiv(t.numel(), BLOCK),)](
                *(t, output, out, t.numel()), BLOCK, num_warps=NUM_WARPS
            )
    return out
