"""The Triton kernels, one file per op: `launch_<op>` runs `_<op>_kernel`. Installed as fastrw.kernels."""

import torch
from torch import Tensor

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def refusal(*tensors: Tensor) -> str | None:
    """Why Triton cannot serve these tensors; None when it can. Imports Triton only for tensors it could serve."""
    device, dtype = tensors[0].device, tensors[0].dtype
    if dtype not in _DTYPES:
        return f"serves float32, bfloat16 and float16, got {dtype}"
    try:
        import triton
    except ImportError as error:
        return f"needs Triton, which does not import: {error}"
    if device.type == "cpu" and triton.knobs.runtime.interpret:
        return None
    if device.type != "cuda":
        return f"serves cuda tensors, got {device}"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return f"needs compute capability 8.0, got {torch.cuda.get_device_capability(device)}"
    return None
