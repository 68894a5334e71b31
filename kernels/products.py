"""Products of tiles that keep what float32 sums of exact terms would keep."""

import triton
import triton.language as tl


@triton.jit
def to_tf32(x):
    """float32 rounded to the ten bits of mantissa that TF32 has."""
    return ((x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit
def dot(x, y, product, PRECISION: tl.constexpr):
    """product + x . y, where one may be bfloat16 or float16 and the other float32.

    Rounding that to the dtype of the narrow one would lose 16 bits of it. It is split into terms, each of which a
    tensor core takes whole: three of bfloat16, or two of TF32, which holds every float16.
    """
    if x.dtype == y.dtype:
        product = tl.dot(x, y, product, input_precision=PRECISION)
    elif y.dtype == tl.bfloat16:
        for _ in tl.static_range(3):
            term = x.to(tl.bfloat16)
            product = tl.dot(term, y, product)
            x -= term.to(tl.float32)
    elif y.dtype == tl.float16:
        y = y.to(tl.float32)
        for _ in tl.static_range(2):
            term = to_tf32(x)
            product = tl.dot(term, y, product, input_precision="tf32")
            x -= term
    elif x.dtype == tl.bfloat16:
        for _ in tl.static_range(3):
            term = y.to(tl.bfloat16)
            product = tl.dot(x, term, product)
            y -= term.to(tl.float32)
    else:
        x = x.to(tl.float32)
        for _ in tl.static_range(2):
            term = to_tf32(y)
            product = tl.dot(x, term, product, input_precision="tf32")
            y -= term
    return product
