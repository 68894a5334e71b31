"""The repaired interpreter computes what a GPU would: each repair on a kernel that goes wrong without it."""

import pytest
import torch

from tests import interpreter

if not interpreter.INTERPRETED:
    pytest.skip("kernels run on the GPU here, or Triton is not installed", allow_module_level=True)

import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError


@triton.jit
def _product_kernel(x_ptr, y_ptr, out_ptr, width, N: tl.constexpr, PRECISION: tl.constexpr):
    rows, columns = tl.arange(0, N)[:, None], tl.arange(0, N)[None, :]
    acc = tl.zeros((N, N), tl.float32)
    for start in range(0, width, N):
        x = tl.load(x_ptr + rows * width + start + columns)
        y = tl.load(y_ptr + rows * width + start + columns)
        acc = tl.dot(x, tl.trans(y), acc, input_precision=PRECISION)
    tl.store(out_ptr + rows * N + columns, acc)


@triton.jit
def _copy_kernel(x_ptr, out_ptr, x_shift, out_shift, N: tl.constexpr):
    lanes = tl.arange(0, N)
    tl.store(out_ptr + out_shift + lanes, tl.load(x_ptr + x_shift + lanes).to(out_ptr.dtype.element_ty))


def product(x, y, precision="ieee"):
    out = torch.empty(16, 16)
    _product_kernel[(1,)](x, y, out, x.shape[1], 16, precision)
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_products_are_of_values_and_summed_in_float32(dtype):
    x, y = torch.randn(2, 16, 64).to(dtype)
    assert torch.allclose(product(x, y), x.float() @ y.float().T, rtol=0, atol=64 * torch.finfo(torch.float32).eps * 16)


def test_tf32_drops_thirteen_bits():
    x, y = torch.full((16, 16), 1 + 2.0**-12), torch.eye(16)
    assert torch.equal(product(x, y, "tf32"), torch.ones(16, 16))
    assert torch.equal(product(x, y, "ieee"), x)


def test_a_product_of_infinity_is_infinite_in_tf32():
    x = torch.full((16, 16), float("inf"))
    assert product(x, torch.ones(16, 16), "tf32").eq(float("inf")).all()


def test_casts_to_bfloat16_round_as_torch_does():
    x = torch.tensor([1 + 2.0**-8, 1 + 3 * 2.0**-8, 3.3895314e38, float("nan"), float("inf"), -1.1, 1e-40, 0.3])
    out = torch.empty(8, dtype=torch.bfloat16)
    _copy_kernel[(1,)](x, out, 0, 0, 8)
    assert torch.equal(out.nan_to_num(7.0), x.bfloat16().nan_to_num(7.0))


@pytest.mark.parametrize(("x_shift", "out_shift", "what"), [(1, 0, "load"), (0, -1, "store")])
def test_stray_accesses_raise(x_shift, out_shift, what):
    around, out = torch.zeros(64), torch.zeros(64)
    with pytest.raises(InterpreterError, match=f"StrayAccess.*{what} of 4 bytes at 1 of 8"):
        _copy_kernel[(1,)](around[8:16], out[8:16], x_shift, out_shift, 8)


def test_the_margin_of_a_view_is_outside():
    column = torch.zeros(8, 2)[:, 0]
    with pytest.raises(InterpreterError, match="load of 4 bytes at 4 of 8"):
        _copy_kernel[(1,)](column, torch.zeros(8), 0, 0, 8)
