"""Settings of torch for the precision of float32."""

import torch
from torch import backends


def no_tf32():
    """float32 is as precise as it looks, on a GPU and in Triton's interpreter, whatever was set before: torch's default
    allows TF32 in convolutions."""
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_fp16_accumulation = False
    backends.fp32_precision = backends.cudnn.fp32_precision = "none"
    mkldnn = (backends._FP32Precision("mkldnn", name) for name in ("all", "matmul", "conv", "rnn"))
    for setting in (backends.cuda.matmul, *mkldnn):
        setting.fp32_precision = "none"
