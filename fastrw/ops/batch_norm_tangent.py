"""batch_norm_tangent: forward mode through BatchNorm in training, the add and the ReLU after it, in one pass."""

import torch
from torch import Tensor

from fastrw.kernels.dense import dense

from . import checks
from .backends import register
from .call import lean
from .sample import Whole

_CHANNELS = ("mean", "rstd", "weight", "d_weight", "d_bias")


def batch_norm_tangent(
    x: Tensor,  # [n, C, ...] input of the BatchNorm
    t: Tensor | None,  # like x: its tangent; None: x is constant
    mean: Tensor,  # [C] of x over examples and positions
    rstd: Tensor,  # [C] 1 / sqrt(variance + eps)
    weight: Tensor | None,  # [C]; None: it is 1
    d_weight: Tensor | None,  # [C] the tangent of weight; None: it is 0
    d_bias: Tensor | None,  # [C] the tangent of bias; None: it is 0
    residual: Tensor | None,  # like x: the tangent of what is added to the BatchNorm's output
    output: Tensor | None,  # like x: what the ReLU after that gave; None: no ReLU follows
    sums: Tensor | None,  # [2, C] of t and of t x over examples and positions; None: computed in a separate pass
    *,
    backend: str = "auto",
) -> Tensor:  # like x
    """weight rstd (t - mean(t) - x_hat mean(x_hat t)) + d_weight x_hat + d_bias + residual, 0 where output <= 0

    with x_hat = (x - mean) rstd and means over examples and positions: the tangent of
    ReLU(weight x_hat + bias + r) where the statistics move with x. It is the score of Eq. 7 of Ren et al. 2018 carried
    through BatchNorm (Ioffe and Szegedy 2015), which couples examples. Sums of 0 keep the statistics fixed: BatchNorm
    in evaluation. Tensors like x share its dtype; contiguous and channels-last memory is read in place where all are
    laid out as x is.

    Returns:
        The tangent, in the dtype of x, contiguous or channels-last as x is. Not differentiable in output.
    """
    return lean("batch_norm_tangent", backend, x, t, mean, rstd, weight, d_weight, d_bias, residual, output, sums)


def _rules(x, t, mean, rstd, weight, d_weight, d_bias, residual, output, sums) -> None:
    checks.alike("batch_norm_tangent", "x", x, t=t, residual=residual, output=output)


def _sample(whole: Whole) -> tuple:
    """Small multiples of powers of two: every product, sum and mean is exact in the dtype of the sums."""
    n, C, S, wide = 4, 5, 16, checks.sums(whole.dtype)
    x, t, residual, output = (whole(n, C, S) for _ in range(4))
    mean, d_weight, d_bias = (whole(C, dtype=wide) for _ in range(3))
    rstd, weight = (2.0 ** whole(C, dtype=wide).clamp(-1, 1) for _ in range(2))
    return x, t, mean / 2, rstd, weight, d_weight, d_bias, residual, output, None


register(
    batch_norm_tangent,
    letters=dict.fromkeys(("x", "t", "residual", "output"), "nC*") | dict.fromkeys(_CHANNELS, "C") | {"sums": "2C"},
    wide=(*_CHANNELS, "sums"),
    rules=_rules,
    outputs=lambda x, *rest: torch.empty_like(dense(x)),
    sample=_sample,
    order={
        "cpu": ("cpp",),  # 0.2 of the reference's time with sums, 0.3 to 0.6 without
        "cuda": ("triton",),  # one pass over memory instead of five
    },
    triton=True,
)
