"""batch_norm_tangent: forward mode through BatchNorm in training, the add and the ReLU after it, in one pass."""

import torch
from torch import Tensor

from fastrw.kernels.dense import dense

from . import backends, checks, reference
from .function import call

_OP = "batch_norm_tangent"
_LETTERS = dict.fromkeys(("x", "t", "residual", "output"), "nC*") | {"sums": "2C"}
_LETTERS |= dict.fromkeys(("mean", "rstd", "weight", "d_weight", "d_bias"), "C")


def batch_norm_tangent(
    x: Tensor,  # [n, C, ...] input of the BatchNorm
    t: Tensor | None,  # its tangent, like x
    mean: Tensor,  # [C] of x over examples and positions
    rstd: Tensor,  # [C] 1 / sqrt(variance + eps)
    weight: Tensor | None,  # [C]
    d_weight: Tensor | None,  # [C] the tangent of weight
    d_bias: Tensor | None,  # [C] the tangent of bias
    residual: Tensor | None,  # the tangent of what is added to the BatchNorm's output, like x
    output: Tensor | None,  # what the ReLU after that gave, like x
    sums: Tensor | None,  # [2, C] sum of t and of t x over examples and positions, where they are known
    *,
    backend: str = "auto",
) -> Tensor:  # like x
    """weight rstd (t - mean(t) - x_hat mean(x_hat t)) + d_weight x_hat + d_bias + residual, 0 where output <= 0

    with x_hat = (x - mean) rstd and means over examples and positions: the tangent of
    ReLU(weight x_hat + bias + r) where the statistics move with x. It is the score of "Learning to Reweight Examples
    for Robust Deep Learning" (Ren et al. 2018, Eq. 7) carried through BatchNorm (Ioffe and Szegedy 2015), where
    examples meet. Sums of 0 keep the statistics fixed: BatchNorm in evaluation.

    Args:
        x, t, residual, output: one shape [n, C, ...], dtype (float32, bfloat16, float16, or float64) and device, with
            any strides: contiguous and channels-last memory is read in place where all lie as x does. No t: x is
            constant. No residual: nothing is added. No output: no ReLU follows. Any size may be 0.
        mean, rstd, weight, d_weight, d_bias, sums: [C], sums [2, C], of the dtype of x or float32 (float64 for a
            float64 x). No weight: it is 1. No tangent of weight or bias: it is 0. No sums: they are taken here, in a
            pass of its own.
        backend: "auto" (the fastest measured one that can serve), "reference", "cpp" or "triton". float64 is served by
            reference and cpp alone.

    Returns:
        The tangent in the dtype of x, contiguous or channels-last as x is; sums are kept in float32 (float64 for
        float64). Differentiable in every tensor but output, to any order, in reverse and forward mode, and under vmap.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: dtypes, devices or shapes break the rules above, or no backend has that name.
        fastrw.Refused: the backend asked for cannot serve these tensors; the text says why.
    """
    args = (x, t, mean, rstd, weight, d_weight, d_bias, residual, output, sums)
    _check(*args)
    return call(_OP, backend, *args)


def _check(x, t, mean, rstd, weight, d_weight, d_bias, residual, output, sums) -> None:
    channels = dict(mean=mean, rstd=rstd, weight=weight, d_weight=d_weight, d_bias=d_bias)
    like_x = dict(residual=residual, output=output)
    checks.tensors(_OP, _LETTERS, wide=(*channels, "sums"), x=x, t=t, **channels, **like_x, sums=sums)
    checks.alike(_OP, "x", x, t=t, **like_x)
    if sums is not None and sums.shape[0] != 2:
        raise ValueError(f"fastrw.{_OP}: sums must be [2, C], got shape {tuple(sums.shape)}")


def _empty(x: Tensor, *rest) -> Tensor:
    _check(x, *rest)
    return torch.empty_like(dense(x))


def _triton(*args) -> Tensor:
    from fastrw.kernels.batch_norm_tangent import launch_batch_norm_tangent  # Triton is imported when it is first used

    return launch_batch_norm_tangent(*args)


def _sample(device: torch.device, dtype: torch.dtype) -> tuple:
    """Small multiples of powers of two: every product, sum and mean is exact in the sums' dtype, in whatever order."""
    n, C, S = 4, 5, 16
    wide = torch.promote_types(dtype, torch.float32)

    def whole(step: int, *shape: int) -> Tensor:
        i = torch.arange(torch.Size(shape).numel(), device=device)
        return (i * i * step % 31 % 5 - 2).view(shape)

    x, t, residual, output = (whole(step, n, C, S).to(dtype) for step in (3, 7, 11, 13))
    mean, d_weight, d_bias = (whole(step, C).to(wide) for step in (17, 19, 23))
    rstd, weight = (2.0 ** whole(step, C).clamp(-1, 1).to(wide) for step in (5, 29))
    return x, t, mean / 2, rstd, weight, d_weight, d_bias, residual, output, None


backends.register(
    _OP,
    schema="(Tensor x, Tensor? t, Tensor mean, Tensor rstd, Tensor? weight, Tensor? d_weight, Tensor? d_bias, "
    "Tensor? residual, Tensor? output, Tensor? sums) -> Tensor",
    reference=reference.batch_norm_tangent,
    triton=_triton,
    fake=_empty,
    order={
        "cpu": ("cpp",),  # 0.2 of the reference's time with sums, 0.3 to 0.6 without
        "cuda": ("triton",),  # by the roof: one pass over memory instead of five; not measured yet
    },
    sample=_sample,
)
