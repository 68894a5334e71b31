"""The one rule by which fastrw calls a number right, and the goals of its scores.

    error <= 2 * (error of plain torch in that dtype) + eps * sqrt(K)

Both errors are relative, in the norm, against float64. K is the number of terms a result sums: rounding errors of a
sum of K terms add up like a random walk. A sum kept in float32 is judged by float32's eps, whatever its inputs were.
"""

import math

import torch
from torch import Tensor

# Largest relative error of the scores against one autograd.grad per example in float64.
SCORE_GOAL = {torch.float32: 1e-5, torch.float64: 1e-10}


def relative_error(x: Tensor, truth: Tensor) -> float:
    """|x - truth| / |truth| in float64; |x| where the truth is zero; nan if any element is.

    Raises:
        ValueError: the shapes differ.
    """
    if x.shape != truth.shape:
        raise ValueError(
            f"fastrw.relative_error: x must have the shape of the truth, {tuple(truth.shape)}, got {tuple(x.shape)}"
        )
    x, truth = (t.detach().to(truth.device, torch.float64) for t in (x, truth))
    scale = truth.norm().item()
    return (x - truth).norm().item() / (scale or 1.0)


def bound(dtype: torch.dtype, plain_error: float, K: int) -> float:
    """The largest relative error allowed where plain torch, with sums of K terms kept in `dtype`, has `plain_error`."""
    return 2 * plain_error + torch.finfo(dtype).eps * math.sqrt(K)
