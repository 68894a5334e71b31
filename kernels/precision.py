"""How float32 products are taken on a GPU: as torch takes its own, "tf32" where it is told to and "ieee" elsewhere.

torch has one setting for products of matrices, off by default, and one for cuDNN's convolutions, on by default. Either
inherits from torch.backends.fp32_precision; the attributes read here give what holds, as torch's own kernels read it.
The older allow_tf32 and torch.get_float32_matmul_precision raise where both interfaces have been used.
"""

import torch


def of_products(dtype: torch.dtype = torch.float32) -> str:
    """Of products of matrices. Of another dtype they are the same whatever torch allows: one build serves them."""
    return _of(torch.backends.cuda.matmul, dtype)


def of_convolutions(dtype: torch.dtype = torch.float32) -> str:
    """Of convolutions and their gradients."""
    return _of(torch.backends.cudnn.conv, dtype)


def _of(setting, dtype: torch.dtype) -> str:
    return "tf32" if dtype == torch.float32 and setting.fp32_precision == "tf32" else "ieee"
