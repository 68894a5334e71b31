"""Settings of torch that decide what bits float32 computations on a GPU give."""

from contextlib import contextmanager

import torch
from torch import backends


def no_tf32():
    """float32 is as precise as it looks, on a GPU and in Triton's interpreter, whatever was set before: torch's default
    allows TF32 in convolutions."""
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = False
    backends.fp32_precision = backends.cudnn.fp32_precision = "none"
    mkldnn = (backends._FP32Precision("mkldnn", name) for name in ("all", "matmul", "conv", "rnn"))
    for setting in (backends.cuda.matmul, *mkldnn):
        setting.fp32_precision = "none"


@contextmanager
def one_algorithm():
    """Inside it cuDNN takes the same algorithm for the same convolution in every run, and one that adds in a fixed
    order: torch's convolutions serve the reference, derivatives, and conv_dot on a GPU."""
    cudnn = backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
