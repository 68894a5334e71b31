"""How float32 products are taken on a GPU: as torch takes its own, "tf32" where it is told to and "ieee" elsewhere.

torch has one setting for products of matrices, off by default, and one for cuDNN's convolutions, on by default. Either
inherits from torch.backends.fp32_precision; the attributes read here give what holds, as torch's own kernels read it.
The older allow_tf32 and torch.get_float32_matmul_precision raise where both interfaces have been used.
"""

import torch


def of_products() -> str:
    """Of products of matrices."""
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


def of_convolutions() -> str:
    """Of convolutions and their gradients."""
    return "tf32" if torch.backends.cudnn.conv.fp32_precision == "tf32" else "ieee"
